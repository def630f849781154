// A real server, real files and the knex of an app.
import { spawn, execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import createKnex from 'knex';
import { createSyncManager } from '@syncline/node';

/** The program, built by scripts/node. */
export const binary = process.env.SYNCLINE_BIN;
if (!binary) throw new Error('SYNCLINE_BIN names no syncline program: run scripts/node');

// The shell's own settings are not the tests'.
for (const name of Object.keys(process.env)) {
  if (/^(SYNC_|SUPABASE_|SYNCLINE_(URL|TOKEN|DEVICE))/.test(name)) delete process.env[name];
}

const RULES = `
[tables.notifications]
columns = { id = "text primary key", title = "text", status = "text" }
read = "_owner = auth.uid()"
write = "_owner = auth.uid()"
merge = { status = "manual" }

[tables.projects]
columns = { id = "text primary key", name = "text check (name <> 'forbidden')", budget = "integer", picture = "blob" }
read = "_owner = auth.uid()"
write = "_owner = auth.uid()"
`;

export const TABLES = [
  'CREATE TABLE notifications (id TEXT PRIMARY KEY NOT NULL, title TEXT, status TEXT)',
  'CREATE TABLE projects (id TEXT PRIMARY KEY NOT NULL, name TEXT, budget INTEGER, picture BLOB)',
];

/** A folder that goes with the tests of a file. */
export function scratch() {
  const folder = mkdtempSync(join(tmpdir(), 'syncline-node-'));
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
  return (name) => join(folder, name);
}

/** A server with the tables of the guide. */
export class Server {
  constructor(path, rules = RULES) {
    this.data = path('server');
    this.cwd = path('.');
    writeFileSync(path('syncline.toml'), rules);
  }

  async start(listen = '127.0.0.1:0') {
    const args = ['serve', '--dev', '--data', this.data, '--listen', listen, '--json'];
    this.process = spawn(binary, args, { cwd: this.cwd, stdio: ['ignore', 'pipe', 'ignore'] });
    process.once('exit', () => this.process.kill());
    for await (const line of createInterface({ input: this.process.stdout })) {
      const { url } = JSON.parse(line);
      if (url) {
        this.url = url;
        return this;
      }
    }
    throw new Error('the server ended before it listened');
  }

  async stop() {
    const ended = once(this.process, 'exit');
    this.process.kill();
    await ended;
  }

  /** Starts again where it was. */
  restart() {
    return this.start(new URL(this.url).host);
  }

  token(user) {
    const args = ['token', '--user', user, '--data', this.data];
    return execFileSync(binary, args, { cwd: this.cwd, encoding: 'utf8' }).trim();
  }
}

/** A knex instance on a file with the guide's tables. */
export async function database(filename, { journal = 'wal', tables = TABLES } = {}) {
  const knex = createKnex({
    client: 'better-sqlite3',
    connection: { filename },
    useNullAsDefault: true,
  });
  await knex.raw(`PRAGMA journal_mode = ${journal}`);
  await knex.raw('PRAGMA busy_timeout = 30000'); // a busy machine is no failure
  for (const table of tables) await knex.raw(table);
  return knex;
}

/** What a test opened, closed in the end whatever happens. */
export class Devices {
  #open = [];

  constructor(server, path, user) {
    Object.assign(this, { server, path, user });
  }

  /** A file with a manager that knows the server. */
  async device(name, options = {}) {
    const knex = await database(this.path(`${this.user}-${name}.db`), options);
    this.#open.push(() => knex.destroy());
    const { url } = this.server;
    const token = this.server.token(this.user);
    const sync = await this.manager(knex, { url, token, ...options.config });
    return { knex, sync };
  }

  async manager(knex, config) {
    const sync = await createSyncManager(knex, config);
    this.#open.push(() => sync.close());
    return sync;
  }

  async close() {
    while (this.#open.length) await this.#open.pop()();
  }
}

/** Waits for what comes by itself. */
export async function until(what, is, seconds = 20) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const found = await is();
    if (found) return found;
    if (Date.now() > end) throw new Error(`waited ${seconds} s for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
