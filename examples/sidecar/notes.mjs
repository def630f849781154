#!/usr/bin/env node
// Notes in a plain SQLite file, kept in step by `syncline sync --watch --json` beside this program.
//
//     export SYNCLINE_URL=http://127.0.0.1:7117 SYNCLINE_TOKEN=$(syncline token --user ana)
//     node notes.mjs notes.db add "Buy milk"
//     node notes.mjs notes.db watch            # prints what other devices write, as it happens
//
// Only Node's standard library: the notes are read and written by the `sqlite3` shell, where an app
// has the driver that it likes. In the same process without a second one: docs/node.md.

import { execFileSync, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { createInterface } from 'node:readline';

const [, , file, command, title] = process.argv;

const quoted = (text) => `'${text.replaceAll("'", "''")}'`;

/** The rows of a statement, waiting a while if the file is being written. */
function sql(statement) {
  const answer = execFileSync('sqlite3', ['-json', '-cmd', '.timeout 5000', file, statement]);
  return answer.length ? JSON.parse(answer) : [];
}

/** The events of `syncline sync FILE --json`, one object a line; the process ends with the loop. */
async function* syncline(...options) {
  const sidecar = spawn('syncline', ['sync', file, '--json', ...options], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = new Promise((resolve, reject) => {
    sidecar.once('exit', resolve);
    sidecar.once('error', reject); // there is no such program
  });
  try {
    for await (const line of createInterface({ input: sidecar.stdout })) yield JSON.parse(line);
  } finally {
    sidecar.kill();
    await ended;
  }
}

async function add() {
  sql(`INSERT INTO notes VALUES (${quoted(randomUUID())}, ${quoted(title)})`);
  // Offline this fails and the note waits in the file: the next run sends it.
  for await (const event of syncline()) {
    if (event.type === 'done') console.log('sent');
    else if (event.type === 'error') console.log(`not sent yet: ${event.message}`);
  }
}

async function watch() {
  for await (const event of syncline('--watch')) {
    if (event.type === 'live') {
      console.log('in step');
    } else if (event.type === 'disconnected') {
      console.log('offline; going on without');
    } else if (event.type === 'rows_changed' && event.table === 'notes') {
      // `keys` is null when too many rows changed to name them.
      for (const key of event.keys ?? []) {
        const [row] = sql(`SELECT title FROM notes WHERE id = ${quoted(key)}`);
        console.log(`${event.author}: ${row ? row.title : 'deleted a note'}`);
      }
    }
  }
}

if (!file || !(command === 'watch' || (command === 'add' && title !== undefined))) {
  console.error('node notes.mjs FILE add TITLE | node notes.mjs FILE watch');
  process.exit(2);
}
sql('CREATE TABLE IF NOT EXISTS notes (id TEXT PRIMARY KEY NOT NULL, title TEXT NOT NULL)');
await (command === 'add' ? add() : watch());
