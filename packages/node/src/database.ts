import { existsSync, realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { SyncError } from './errors.js';

/** The part of a knex instance that is looked at. */
export interface KnexLike {
  client: { config: { connection?: unknown } };
}

/** A SQLite file: its path, or the knex instance of an app that has it open. */
export type Database = string | KnexLike;

/**
 * The file's one absolute path, whatever links lead to it.
 * @internal
 */
export function fileOf(database: Database): string {
  const name = typeof database === 'string' ? database : fileOfKnex(database);
  if (name === '' || name.includes(':memory:')) {
    throw new SyncError(
      'not_a_file',
      'invalid',
      'the database is in memory; only a file can sync, because another device must find it later',
    );
  }
  if (name.startsWith('file:')) {
    throw new SyncError('not_a_file', 'invalid', `${name} is a URI; name the file by its path`);
  }
  const path = resolve(name);
  if (existsSync(path)) return realpathSync(path);
  const folder = dirname(path);
  return existsSync(folder) ? join(realpathSync(folder), basename(path)) : path;
}

function fileOfKnex(knex: KnexLike): string {
  let connection = knex.client?.config?.connection;
  if (connection && typeof connection === 'object' && 'filename' in connection) {
    connection = connection.filename;
  }
  if (typeof connection === 'string') return connection;
  throw new SyncError(
    'not_a_file',
    'invalid',
    'no file name in knex.client.config.connection: give the path of the SQLite file instead',
  );
}
