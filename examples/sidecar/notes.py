#!/usr/bin/env python3
"""Notes in a plain SQLite file, kept in step by `syncline sync --watch --json` beside this program.

    export SYNCLINE_URL=http://127.0.0.1:7117 SYNCLINE_TOKEN=$(syncline token --user ana)
    python3 notes.py notes.db add "Buy milk"
    python3 notes.py notes.db watch          # prints what other devices write, as it happens

Nothing here is Syncline's but the process that is started: the notes are Python's own sqlite3.
"""

import json
import sqlite3
import subprocess
import sys
import uuid
from contextlib import contextmanager

SCHEMA = "CREATE TABLE IF NOT EXISTS notes (id TEXT PRIMARY KEY NOT NULL, title TEXT NOT NULL)"


@contextmanager
def syncline(file, *options):
    """The events of `syncline sync FILE --json`, one dict a line; the process ends with the block."""
    command = ["syncline", "sync", file, "--json", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield (json.loads(line) for line in process.stdout)
    finally:
        process.terminate()
        process.wait()


def add(notes, file, title):
    with notes:
        notes.execute("INSERT INTO notes VALUES (?, ?)", (str(uuid.uuid4()), title))
    # Offline this fails and the note waits in the file: the next run sends it.
    with syncline(file) as events:
        for event in events:
            if event["type"] == "done":
                print("sent")
            elif event["type"] == "error":
                print(f"not sent yet: {event['message']}")


def watch(notes, file):
    with syncline(file, "--watch") as events:
        for event in events:
            if event["type"] == "live":
                print("in step", flush=True)
            elif event["type"] == "disconnected":
                print("offline; going on without", flush=True)
            elif event["type"] == "rows_changed" and event["table"] == "notes":
                # `keys` is null when too many rows changed to name them.
                for key in event["keys"] or []:
                    row = notes.execute("SELECT title FROM notes WHERE id = ?", (key,)).fetchone()
                    print(f"{event['author']}: {row[0] if row else 'deleted a note'}", flush=True)


def main():
    if len(sys.argv) == 4 and sys.argv[2] == "add":
        command = add
    elif len(sys.argv) == 3 and sys.argv[2] == "watch":
        command = watch
    else:
        sys.exit(__doc__)
    file = sys.argv[1]
    notes = sqlite3.connect(file)
    notes.execute(SCHEMA)
    try:
        command(notes, file, *sys.argv[3:])
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
