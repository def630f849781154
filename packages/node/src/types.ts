import type { SyncFailure } from './errors.js';
import type { Row, Value } from './cells.js';

export type Operation = 'seed' | 'hydrate' | 'sync' | 'auto';

/** How far a run is. */
export interface SyncProgress {
  /** 0 to 100; never falls within a run. */
  percentage: number;
  /** A sentence for people. */
  message: string;
  /** The table that is being worked on, where it is one. */
  table: string | null;
  phase: 'connecting' | 'comparing' | 'sending' | 'receiving' | 'done';
}

export type OnProgress = (progress: SyncProgress) => void;

export interface RowCounts {
  created: number;
  updated: number;
  deleted: number;
}

/** A conflict that was opened or decided; `SyncManager.getConflict` tells the rest. */
export interface ConflictNotice {
  id: string;
  /** The table of its row. */
  entityType: string;
}

/** What a run did. */
export interface SyncResult {
  operation: Operation;
  /** Which tables were asked for; null for all. */
  tables: string[] | null;
  /** Nothing was done: the numbers say what would be. */
  dryRun: boolean;
  /** No server is configured, so there was nothing to do; only of `performSync`. */
  isOffline: boolean;
  /** Rows sent and received. */
  recordsProcessed: number;
  created: number;
  updated: number;
  deleted: number;
  /** Changes of this device that the server took. */
  sent: RowCounts;
  /** Rows that changed here because of the server. */
  received: RowCounts;
  /** Conflicts that were opened and wait for a decision; at most the first thousand. */
  conflicts: ConflictNotice[];
  /** Edits of this device that lost. */
  editsLost: number;
  /** Changes that the server refused, resolvers that failed, and the like. */
  errors: SyncFailure[];
  bytesSent: number;
  bytesReceived: number;
  startedAt: Date;
  /** Milliseconds it took. */
  duration: number;
  /** Milliseconds of them in which the network or the server was waited for. */
  networkTime: number;
}

/** How a run may be called. */
export interface RunOptions {
  /** Ends the run: it fails as `interrupted`, and the next one goes on from there. */
  signal?: AbortSignal | undefined;
  /** Says what would be done, and does nothing. */
  dryRun?: boolean | undefined;
}

/** A conflict of the inbox. */
export interface ConflictRecord extends ConflictNotice {
  /** The values of the row's primary key. */
  key: Value[];
  /** Null for the whole row. */
  column: string | null;
  /** Two people changed a column that merges by hand, or an update lost against a delete. */
  kind: 'manual' | 'deleted';
  /** What it was before, what this user wrote, what the server has. */
  base: unknown;
  mine: unknown;
  theirs: unknown;
  /** Who wrote `theirs`; null for another program. */
  other: string | null;
  openedAt: Date;
  open: boolean;
}

/** A conflict with what is needed to decide it. */
export interface Conflict extends ConflictRecord {
  /** The row as this user wants it. */
  localData: Row;
  /** The row as the server has it; empty if it was deleted there. */
  remoteData: Row;
  /** When this user wrote; null on every device but the one that made the edit. */
  localTimestamp: Date | null;
  /** When the server's row was last written; null where that is not known. */
  remoteTimestamp: Date | null;
}

/**
 * `'local'` keeps what this user wrote, `'remote'` what the server has, `{ value }` something
 * else; null or undefined leaves the conflict open, for a person or another device.
 */
export type Resolution = 'local' | 'remote' | { value: Value };

/**
 * Decides one conflict. A run waits for the resolvers that it made necessary: they must not await
 * a run. One that throws leaves its conflict open, and is told in `SyncResult.errors`.
 */
export type ConflictResolver = (
  conflict: Conflict,
) => Resolution | null | undefined | Promise<Resolution | null | undefined>;

/** One sync of the past. */
export interface SyncHistoryEntry {
  /** When it began. */
  timestamp: Date;
  operation: Operation;
  recordsProcessed: number;
  sent: number;
  received: number;
  conflicts: number;
  bytesSent: number;
  bytesReceived: number;
  /** Milliseconds it took. */
  duration: number;
  /** Why it failed, if it did. */
  error: string | null;
}

/** How it is going. */
export interface SyncStats {
  /** Rows of this file that the server has. */
  totalRecords: number;
  /** When a sync last reached its end, by this device's clock. */
  lastSyncTime: Date | null;
  /** Transactions and operations that wait. */
  pendingOperations: number;
  /** Conflicts that were decided, of those the inbox still has. */
  conflictsResolved: number;
  conflictsOpen: number;
  /** The last hundred syncs, newest first. */
  syncHistory: SyncHistoryEntry[];
}

/** This device. */
export interface LocalDevice {
  /** Null before a server was met. */
  deviceId: string | null;
  deviceName: string;
  platform: string;
  /** Whose file this is; null before a server was met. */
  user: string | null;
  /** The user took it off the list: it does not sync until `registerDevice`. */
  isDeregistered: boolean;
}

/** A device of the user's, as the server knows it. */
export interface Device {
  deviceId: string;
  deviceName: string;
  platform: string;
  /** When it was registered. */
  firstSeen: Date;
  /** When it was last connected; now, if it is. */
  lastSeen: Date;
  isConnected: boolean;
  /** Whether it is this one. */
  isThis: boolean;
  /** Milliseconds that it is behind; 0 if it lacks nothing, null while it has to load everything. */
  behind: number | null;
}

/** One change of a row. */
export interface RowChange {
  /** For `restoreRow`. */
  version: number;
  /** When the server took it. */
  at: Date;
  /** `appeared` and `removed`: the row came into this user's sight, or left it. */
  kind: 'insert' | 'update' | 'delete' | 'appeared' | 'removed';
  /** Who did it and with which device; null for another program at the server. */
  user: string | null;
  deviceId: string | null;
  /** What this user calls the device. */
  deviceName: string | null;
  /** The columns that changed; null also for a value that nobody knows. */
  columns: { column: string; before: Value; after: Value }[];
}

/** What happened to a row, as far as this user may know it. */
export interface RowHistory {
  /** Newest first. */
  changes: RowChange[];
  /** There are older ones: ask for those before the last one's version. */
  more: boolean;
  /** What happened before is forgotten; null if the server keeps no history at all. */
  knownSince: Date | null;
}

/** Whether syncing works. */
export interface Health {
  status: 'no-provider' | 'disconnected' | 'invalid' | 'healthy';
  message: string;
  /** What went wrong, if anything did. */
  error: SyncFailure | null;
}

export interface TableStatus {
  name: string;
  state: 'unmatched' | 'loading' | 'live' | 'left_out';
  /** Why it does not sync. */
  reason: string | null;
  /** Rows that the server gave. */
  rows: number;
}

/** The file at this moment. */
export interface Status {
  deviceId: string;
  user: string | null;
  url: string | null;
  tables: TableStatus[];
  /** Transactions that wait to be sent or answered. */
  waiting: number;
  /** Transactions in the server's log, waiting for their checkpoint. */
  accepted: number;
  /** Transactions that the server refused. */
  parked: number;
  /** Open conflicts. */
  conflicts: number;
  /** The server had nothing more when it was last asked. */
  caughtUp: boolean;
  /** The user took this device off the list. */
  isDeregistered: boolean;
}

/**
 * What to subscribe to: what hangs below the row of a table with this key, below this value of a
 * column by which a read rule finds people or a parent, or what a table shows to all alike.
 */
export type Topic =
  | { table: string; key: Value[] }
  | { table: string; column: string; value: Value }
  | { table: string };

/** A subscription of this device. */
export interface Subscription {
  topic: Topic;
  /** `live`: what there is for this user is here. `ending`: its rows stay until `endsAt`. */
  state: 'waiting' | 'live' | 'ending';
  endsAt: Date | null;
}

/** What is known of one row. */
export interface RowStatus {
  state: 'synced' | 'pending' | 'conflict' | 'unknown';
  version: number | null;
  owner: string | null;
  createdAt: Date | null;
  modifiedAt: Date | null;
  modifiedBy: string | null;
  /** Transactions of this device that touch it and wait. */
  pending: string[];
  /** Ids of open conflicts about it. */
  conflicts: string[];
}

/** Names of this interface that hold milliseconds since 1970 in JSON. */
const DATES = new Set([
  'at',
  'firstSeen',
  'lastSeen',
  'knownSince',
  'timestamp',
  'lastSyncTime',
  'startedAt',
  'openedAt',
  'createdAt',
  'dueAt',
  'endsAt',
  'modifiedAt',
  'localTimestamp',
  'remoteTimestamp',
]);

/**
 * The addon's JSON with dates where they belong, in the object itself and the listed lists of it.
 * @internal
 */
export function dated<T>(json: object, ...lists: string[]): T {
  const entries = Object.entries(json).map(([name, value]) => {
    if (DATES.has(name) && typeof value === 'number') return [name, new Date(value)];
    if (lists.includes(name)) return [name, (value as object[]).map((item) => dated(item))];
    return [name, value];
  });
  return Object.fromEntries(entries) as T;
}
