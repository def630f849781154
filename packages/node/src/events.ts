import { fromCell, listFromCells, type Cell } from './cells.js';
import { SyncError, type SyncFailure } from './errors.js';
import {
  dated,
  type ConflictNotice,
  type Operation,
  type SyncProgress,
  type SyncResult,
  type Topic,
} from './types.js';

/** What each event carries, by name. */
export interface SyncEventData {
  /** A sync begins: one that was called for, or a round of auto-sync. */
  sync_started: { operation: Operation };
  /** How far it is; a few times a second at most. */
  sync_progress: { progress: SyncProgress };
  /** It reached its end. */
  sync_completed: { result: SyncResult };
  /** It failed, or the connection was lost; auto-sync tries again by itself. */
  sync_error: { error: SyncError };
  /** An edit made here waits for a decision: `resolveConflict`, or a resolver. */
  conflict_detected: ConflictNotice;
  /** Somebody decided, here or on another device. */
  conflict_resolved: ConflictNotice;
  /** Rows changed because of the server, all of one commit at once. */
  rows_changed: {
    table: string;
    /** Keys of the rows as text; empty when they are too many. */
    ids: string[];
    isComplete: boolean;
    /** Who changed them, where it was one person. */
    by: string | null;
  };
  /** The server refused a transaction; its effect was undone here. */
  change_refused: { id: string; row: string; code: string; reason: string };
  /** An edit made here lost against somebody else's. */
  edit_lost: { table: string; id: string; column: string | null; reason: string };
  /** The server took the token. */
  connected: { user: string };
  /** There is no connection; the next attempt follows by itself. */
  disconnected: { error: SyncError; retryAfter: number };
  /** Everything the server has for this user is here. */
  live: Record<never, never>;
  /** An integer key given here was taken: the row has another one now. */
  rekeyed: { table: string; from: string; to: string };
  /** A permission ended; its rows were removed here. */
  access_lost: { rows: number };
  /** What was subscribed to is here. */
  subscribed: { topic: Topic };
  /** Nobody subscribes to these rows any more; they were removed here. */
  released: { rows: number };
  /** The server does not send all that is subscribed to. */
  subscriptions_refused: { code: string; reason: string };
  /** Tables that do not sync. */
  tables_left_out: { tables: { name: string; reason: string }[] };
  /** A row that cannot be sent as it is, or that this database cannot hold. */
  row_unfit: { table: string; row: string; reason: string };
  /** The app's tables were rebuilt: this many rows were found changed meanwhile. */
  rescanned: { rows: number };
  /** Rows are loaded again. Nothing unsent is lost. */
  reloading: { reason: string };
  /** Somebody has to sign in again: nothing syncs until the configuration has another token. */
  signed_out: { reason: string };
  /**
   * This device was taken off its user's list, who wanted removed what it had synced: so many rows,
   * and changesets that had not been sent. The tables are empty.
   */
  wiped: { rows: number; unsent: number; unsentRows: { table: string; id: string }[] };
  /** One of the app's own operations failed for good; it waits in the queue. */
  operation_failed: { id: string; kind: string; reason: string };
  /** Listeners were too slow: so many events are missing. Read what you show again. */
  lagged: { missed: number };
}

export type SyncEventType = keyof SyncEventData;

export interface SyncEvent<T extends SyncEventType = SyncEventType> {
  type: T;
  data: SyncEventData[T];
}

export type SyncEventListener<T extends SyncEventType> = (event: SyncEvent<T>) => void;

/**
 * An event of the addon.
 * @internal
 */
export function readEvent(json: string): SyncEvent {
  const event = JSON.parse(json) as { type: SyncEventType; data: Record<string, unknown> };
  const { data } = event;
  if ('result' in data) data.result = dated(data.result as object);
  if ('topic' in data) data.topic = fromTopic(data.topic as NativeTopic);
  if ('error' in data) data.error = SyncError.of(data.error as SyncFailure);
  return event as unknown as SyncEvent;
}

/** @internal */
export type NativeTopic = { table: string } & Partial<{ key: Cell[]; column: string; value: Cell }>;

/** @internal */
export function fromTopic({ table, key, column, value }: NativeTopic): Topic {
  if (key) return { table, key: listFromCells(key) };
  if (column !== undefined) return { table, column, value: fromCell(value ?? null) };
  return { table };
}
