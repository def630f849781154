// Keeps an app's SQLite file in step with a Syncline server, offline included.
import { native } from './native.js';

export { createSyncManager, SyncManager } from './manager.js';
export { Accounts, type User } from './accounts.js';
export {
  isSyncAvailable,
  type EffectiveConfig,
  type SyncConfig,
  type TokenProvider,
} from './config.js';
export { SyncProvider } from './provider.js';
export { ConflictResolvers, ConflictResolverFactory } from './resolvers.js';
export {
  PermanentError,
  RetryQueue,
  type OperationHandler,
  type QueuedChangeset,
  type QueuedOperation,
  type QueueStats,
} from './queue.js';
export { SyncError, type SyncErrorKind, type SyncFailure } from './errors.js';
export type { Database, KnexLike } from './database.js';
export type { Row, Value } from './cells.js';
export type { SyncEvent, SyncEventData, SyncEventListener, SyncEventType } from './events.js';
export type {
  Conflict,
  ConflictNotice,
  ConflictRecord,
  ConflictResolver,
  Device,
  Health,
  LocalDevice,
  OnProgress,
  Operation,
  Resolution,
  RowChange,
  RowCounts,
  RowHistory,
  RowStatus,
  RunOptions,
  Status,
  Subscription,
  SyncHistoryEntry,
  SyncProgress,
  SyncResult,
  SyncStats,
  TableStatus,
  Topic,
} from './types.js';

/** A new row id: a UUID of version 7, so that rows made later sort later. */
export function newId(): string {
  return native().newId();
}
