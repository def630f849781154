import { fileOf, type Database } from './database.js';
import { SyncError, messageOf } from './errors.js';
import { SyncManager, managers } from './manager.js';
import { dated } from './types.js';

/** How much is in the queue. */
export interface QueueStats {
  /** Transactions and operations that wait. */
  pending: number;
  /** Transactions that the server refused, and operations that were tried too often. */
  failed: number;
  /** Operations that were done and not cleared yet. */
  completed: number;
  /** The transactions among `pending`. */
  changesetsPending: number;
  /** The transactions among `failed`. */
  changesetsFailed: number;
}

/** A transaction on its way to the server. */
export interface QueuedChangeset {
  id: string;
  state: 'waiting' | 'sent' | 'accepted' | 'refused';
  /** Why it was refused. */
  code: string | null;
  reason: string | null;
  /** Tables of its first hundred changes. */
  tables: string[];
  /** How many rows it changes. */
  changes: number;
  createdAt: Date;
}

/** An operation of the app's own. */
export interface QueuedOperation<T = unknown> {
  id: string;
  kind: string;
  /** Of two that wait with the same kind and key only the later is done. */
  key: string | null;
  payload: T;
  state: 'pending' | 'completed' | 'failed';
  attempts: number;
  dueAt: Date;
  createdAt: Date;
  /** What went wrong last. */
  error: string | null;
}

/**
 * Does operations of one kind. What it throws has the operation tried again later, with growing
 * pauses; a `PermanentError` does not.
 */
export type OperationHandler<T = unknown> = (operation: QueuedOperation<T>) => void | Promise<void>;

/** Thrown by a handler for an operation that will never work. */
export class PermanentError extends Error {
  override readonly name = 'PermanentError';
}

/**
 * What waits, what failed and why: transactions that the server has not taken, and operations of
 * the app's own (send a mail, upload a file), which are kept in the file until they are done.
 *
 * Works while a `SyncManager` of the same file is open.
 */
export class RetryQueue {
  readonly #database: Database | SyncManager;

  constructor(database: Database | SyncManager) {
    this.#database = database;
  }

  /** How much waits, failed and was done. */
  getStats(): Promise<QueueStats> {
    return this.#call('queueStats');
  }

  /** Transactions that wait or were refused, in order; at most the first thousand. */
  async getChangesets(): Promise<QueuedChangeset[]> {
    const found = await this.#call<object[]>('changesets');
    return found.map((queued) => dated(queued));
  }

  /** Operations of the app's own, in order; at most the first thousand. */
  async getOperations(): Promise<QueuedOperation[]> {
    const found = await this.#call<object[]>('operations');
    return found.map((operation) => dated(operation));
  }

  /** Forgets operations that were done more than so many hours ago. How many. */
  clearCompleted(olderThanHours = 0): Promise<number> {
    if (!(olderThanHours >= 0)) {
      const message = `${olderThanHours} is no number of hours`;
      return Promise.reject(new SyncError('invalid', 'invalid', message));
    }
    const olderThanMs = Math.min(Math.round(olderThanHours * 3_600_000), Number.MAX_SAFE_INTEGER);
    return this.#call('clearCompleted', { olderThanMs });
  }

  /** Has everything that failed tried again. How many. */
  retryAllFailed(): Promise<number> {
    return this.#call('retryAllFailed');
  }

  /** Forgets everything that failed; what was refused was undone in the file already. How many. */
  clearFailed(): Promise<number> {
    return this.#call('clearFailed');
  }

  /** Has one refused transaction sent again, with those that wait because of it. How many. */
  retry(changesetId: string): Promise<number> {
    return this.#call('retry', { id: changesetId });
  }

  /** Forgets one refused transaction. */
  async discard(changesetId: string): Promise<void> {
    await this.#call('discard', { id: changesetId });
  }

  /**
   * Queues an operation, durably, and gives its id. One of the same kind and key that still waits
   * gets the new payload instead. The payload is kept as JSON, at most a megabyte.
   */
  enqueue(kind: string, payload: unknown, key: string | null = null): Promise<string> {
    return this.#call('enqueue', { kind, key, payload: payload ?? null });
  }

  /** Says who does operations of a kind, from now on; after a restart it is to be said again. */
  async register<T = unknown>(kind: string, handler: OperationHandler<T>): Promise<void> {
    await this.#manager().registerHandler(kind, async (json) => {
      try {
        await handler(dated<QueuedOperation<T>>(JSON.parse(json) as object));
        return 'null';
      } catch (error) {
        const how = error instanceof PermanentError ? 'fail' : 'retry';
        return JSON.stringify({ [how]: messageOf(error) });
      }
    });
  }

  #manager(): SyncManager {
    if (this.#database instanceof SyncManager) return this.#database;
    const path = fileOf(this.#database);
    const manager = managers.get(path);
    if (manager) return manager;
    const message = `no sync manager of ${path} is open; call createSyncManager first`;
    throw new SyncError('closed', 'closed', message);
  }

  async #call<T>(call: string, args: object = {}): Promise<T> {
    return this.#manager().ask<T>(call, args);
  }
}
