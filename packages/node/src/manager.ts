import { fromCell, fromCells, listFromCells, toCell, type Cell, type Row, type Value } from './cells.js';
import {
  changed,
  fromEnvironment,
  toAsk,
  toNative,
  type EffectiveConfig,
  type Settings,
  type SyncConfig,
} from './config.js';
import { fileOf, type Database } from './database.js';
import { SyncError, called, fromNative, messageOf } from './errors.js';
import {
  fromTopic,
  readEvent,
  type NativeTopic,
  type SyncEvent, type SyncEventListener, type SyncEventType } from './events.js';
import { native, type Ask, type NativeManager, type Tell } from './native.js';
import { SyncProvider } from './provider.js';
import {
  dated,
  type Conflict,
  type ConflictRecord,
  type ConflictResolver,
  type Health,
  type LocalDevice,
  type OnProgress,
  type Operation,
  type Resolution,
  type RowChange,
  type RowHistory,
  type RowStatus,
  type RunOptions,
  type Status,
  type Subscription,
  type SyncProgress,
  type SyncResult,
  type SyncStats,
  type Topic,
} from './types.js';

/**
 * The managers that this thread has open, by file.
 * @internal
 */
export const managers = new Map<string, SyncManager>();

/** Kinds of errors after which the server does not take this device, or is not there. */
const REFUSING = new Set(['not_connected', 'authentication', 'deregistered']);
/** Longest pause of a timer. */
const TIMER_MAX = 2 ** 31 - 1;

/**
 * Opens a sync manager of a SQLite file: that of a knex instance, or the one at a path, which is
 * made if there is none. No server is needed. What `config` leaves out comes from the environment.
 *
 * A file that does not sync yet stays as it is until a server is met for the first time. A file has
 * one manager at a time.
 */
export async function createSyncManager(
  database: Database,
  config: SyncConfig = {},
): Promise<SyncManager> {
  const path = fileOf(database);
  const settings = changed(fromEnvironment(process.env), config);
  // Events may come before there is a manager to hear of them.
  const early: string[] = [];
  let hear: Tell = (event) => early.push(event);
  const opened = await called(
    native().open(path, toNative(settings), (event) => hear(event), toAsk(settings)),
  );
  const manager = new SyncManager(opened, path, settings, (listener) => (hear = listener));
  managers.set(path, manager);
  early.forEach((event) => hear(event));
  return manager;
}

/**
 * Keeps one SQLite file in step with a server. The app reads and writes the file as it likes; any
 * program may. Everything works offline and waits.
 */
export class SyncManager {
  /** The file. */
  readonly path: string;
  readonly #native: NativeManager;
  readonly #listeners = new Map<SyncEventType, Set<SyncEventListener<SyncEventType>>>();
  #settings: Settings;
  #provider: SyncProvider | null = null;
  #isTaken = false;
  #keepAlive: NodeJS.Timeout | undefined;
  #closing: Promise<void> | undefined;

  /** @internal */
  constructor(
    opened: NativeManager,
    path: string,
    settings: Settings,
    listen: (listener: Tell) => void,
  ) {
    this.#native = opened;
    this.path = path;
    this.#settings = settings;
    listen((json) => this.#tell(readEvent(json)));
    this.#configured();
    // Whether the server takes this device is known a moment later; offline, when it is back.
    if (this.#provider) this.getHealth().catch(() => {});
  }

  // The server.

  /**
   * Connects to a server from now on. When it cannot be reached that is tried again later, by
   * itself; when it does not take the token, that is an error and nothing has changed.
   */
  async connect(url: string, token: string): Promise<SyncProvider> {
    const before = this.#settings;
    this.#configure({ ...changed(before, { url, token, login: false }), tokenProvider: null });
    const health = await this.getHealth();
    if (health.status === 'invalid') {
      const { url, token, login, tokenProvider } = before;
      this.#configure({ ...this.#settings, url, token, login, tokenProvider });
      throw health.error ? SyncError.of(health.error) : new SyncError('refused', 'refused', health.message);
    }
    return this.#provider!;
  }

  /** `connect` for apps that were written for these names: the key is a token, too. */
  createSupabaseProvider(url: string, key: string, token?: string | null): Promise<SyncProvider> {
    return this.connect(url, token || key);
  }

  /** The server that is configured, or null: then everything stays on this device. */
  getProvider(): SyncProvider | null {
    return this.#provider;
  }

  /** Forgets the server: everything stays on this device until there is one again. */
  disconnect(): void {
    const none = { url: null, token: null, login: false, tokenProvider: null };
    this.#configure({ ...this.#settings, ...none });
  }

  // Runs. One at a time; others wait for their turn.

  /** Sends the rows of this device to the server: a backup, or the first device. */
  seed(tables?: string[] | null, onProgress?: OnProgress, options?: RunOptions): Promise<SyncResult> {
    return this.#run('seed', tables, undefined, onProgress, options);
  }

  /** Brings the server's rows to this device. A new file gets the server's tables too. */
  hydrate(tables?: string[] | null, onProgress?: OnProgress, options?: RunOptions): Promise<SyncResult> {
    return this.#run('hydrate', tables, undefined, onProgress, options);
  }

  /**
   * Both ways: ends when everything local is at the server and everything of the server's that was
   * there when it began is here. Tables that no call has named yet stay on the device; `resolver`
   * decides the conflicts of this run.
   */
  sync(
    tables?: string[] | null,
    resolver?: ConflictResolver | null,
    onProgress?: OnProgress | null,
    options?: RunOptions,
  ): Promise<SyncResult> {
    return this.#run('sync', tables, resolver, onProgress, options);
  }

  /** `sync` of all tables in the background of an app: without a server it ends well. */
  performSync(): Promise<SyncResult> {
    return this.#run('sync', undefined, undefined, undefined, { isBackground: true });
  }

  // Configuration and auto-sync.

  /** The configuration as it is; without the token. */
  getConfig(): EffectiveConfig {
    const { token: _, tokenProvider: _p, encryptionKeys: _k, ...shown } = this.#settings;
    return shown;
  }

  /** Changes what `config` names. `autoSyncEnabled` starts or stops auto-sync. */
  updateConfig(config: SyncConfig): void {
    this.#configure(changed(this.#settings, config));
  }

  /**
   * Syncs by itself from now on: at once, a moment after each change, when the server is back, and
   * at least every `autoSyncInterval`. Keeps the process alive, as a timer does.
   */
  startAutoSync(): void {
    this.updateConfig({ autoSyncEnabled: true });
  }

  /** Syncs only when it is called for. */
  stopAutoSync(): void {
    this.updateConfig({ autoSyncEnabled: false });
  }

  /** The network came back: auto-sync does not wait any longer for its next attempt. */
  foreground(): void {
    this.#native.foreground();
  }

  // Events.

  /** Has `listener` told of each event of a type, in order. */
  addEventListener<T extends SyncEventType>(type: T, listener: SyncEventListener<T>): void {
    let listeners = this.#listeners.get(type);
    if (!listeners) this.#listeners.set(type, (listeners = new Set()));
    listeners.add(listener as SyncEventListener<SyncEventType>);
  }

  removeEventListener<T extends SyncEventType>(type: T, listener: SyncEventListener<T>): void {
    this.#listeners.get(type)?.delete(listener as SyncEventListener<SyncEventType>);
  }

  // How it is going.

  async getSyncStats(): Promise<SyncStats> {
    return dated(await this.ask<object>('stats'), 'syncHistory');
  }

  /** Asks the server whether it takes this device, and says in one of four words how it is. */
  async getHealth(): Promise<Health> {
    const health = await this.ask<Health>('health');
    this.#isTaken = health.status === 'healthy';
    return health;
  }

  /** The file at this moment; null before it met a server. */
  getStatus(): Promise<Status | null> {
    return this.ask('status');
  }

  /** What is known of one row. `key`: the values of its primary key. */
  async getRowStatus(table: string, key: Value[]): Promise<RowStatus> {
    return dated(await this.ask<object>('rowStatus', { table, key: key.map(toCell) }));
  }

  getLocalDevice(): Promise<LocalDevice> {
    return this.ask('localDevice');
  }

  /** @internal */
  async registerDevice(name: string): Promise<LocalDevice> {
    const device = await this.ask<LocalDevice>('registerDevice', { name });
    this.#settings = { ...this.#settings, deviceName: name };
    return device;
  }

  /**
   * Has the file keep every change from now on, before any server was met: for an app that is used
   * offline first. Whether it was not so yet.
   */
  attach(): Promise<boolean> {
    return this.ask('attach');
  }

  // The history of rows, which the server keeps.

  /** Who changed a row, when, on which device, and what was before and after; newest first. */
  async getRowHistory(
    table: string,
    key: Value[],
    { before, limit }: { before?: number | undefined; limit?: number | undefined } = {},
  ): Promise<RowHistory> {
    const args = { table, key: key.map(toCell), before: before ?? null, limit: limit ?? null };
    const { changes, ...rest } = await this.ask<NativeHistory>('history', args);
    const listed = changes.map((change): RowChange => {
      const columns = change.columns.map(({ column, before, after }) => {
        return { column, before: fromCell(before), after: fromCell(after) };
      });
      return dated({ ...change, columns });
    });
    return dated({ ...rest, changes: listed });
  }

  /**
   * Makes a row what it was right after the change of a version; of a deletion: what it deleted.
   * An ordinary change of this device.
   */
  restoreRow(
    table: string,
    key: Value[],
    version: number,
  ): Promise<'inserted' | 'updated' | 'unchanged'> {
    return this.ask('restoreRow', { table, key: key.map(toCell), version });
  }

  // Rows that come when they are asked for.

  /**
   * Has rows of tables with `sync = "on_demand"` sent from now on, as far as this user may see them:
   * what hangs below a row, a value of a column or a whole table. Kept in the file, across restarts,
   * until `unsubscribe`; the event `subscribed` says when all are here. Whether it is new.
   */
  subscribe(topic: Topic): Promise<boolean> {
    return this.ask('subscribe', { topic: toTopic(topic) });
  }

  /**
   * Ends a subscription: its rows are removed from this device after `keepFor` milliseconds (five
   * minutes), and once nothing waits to be sent. Subscribing again before keeps them. Whether there
   * was one.
   */
  unsubscribe(topic: Topic, { keepFor = 300_000 } = {}): Promise<boolean> {
    return this.ask('unsubscribe', { topic: toTopic(topic), keepForMs: Math.round(keepFor) });
  }

  /** What this device subscribes to, and what it keeps for a while. */
  async getSubscriptions(): Promise<Subscription[]> {
    const found = await this.ask<{ topic: NativeTopic }[]>('subscriptions');
    return found.map((one) => dated({ ...one, topic: fromTopic(one.topic) }));
  }

  // Conflicts.

  /** Conflicts of this user, newest first: those that wait for a decision, or all. */
  async getConflicts({ openOnly = true } = {}): Promise<ConflictRecord[]> {
    const found = await this.ask<NativeConflict[]>('conflicts', { openOnly });
    return found.map(readConflict);
  }

  async getConflict(id: string): Promise<ConflictRecord> {
    return readConflict(await this.ask('conflict', { id }));
  }

  /** Decides a conflict. The server takes it only if nobody decided meanwhile. */
  async resolveConflict(id: string, resolution: Resolution): Promise<void> {
    await this.ask('resolve', { id, resolution: toAnswer(resolution) });
  }

  /** Has conflicts of a table decided by `resolver`: those that are open, and those to come. */
  async setResolver(table: string, resolver: ConflictResolver): Promise<void> {
    const warn = (error: unknown) => process.emitWarning(`a conflict stays open: ${messageOf(error)}`, 'SyncWarning');
    await called(this.#native.setResolver(table, asked(resolver, warn)));
  }

  async removeResolver(table: string): Promise<void> {
    await this.ask('removeResolver', { table });
  }

  // Live queries.

  /**
   * The rows of a query: now, and again after each commit, of whatever program, that changed them.
   * States in between may be skipped, the last one never. It only reads.
   */
  async *watch(
    sql: string,
    params: Value[] = [],
    { signal }: { signal?: AbortSignal | undefined } = {},
  ): AsyncGenerator<Row[], void, void> {
    if (signal?.aborted) return;
    const live = await called(this.#native.watch(sql, JSON.stringify(params.map(toCell))));
    const close = () => live.close();
    signal?.addEventListener('abort', close, { once: true });
    try {
      if (signal?.aborted) return;
      for (;;) {
        const rows = await called(live.next());
        if (rows === null) return;
        yield (JSON.parse(rows) as Parameters<typeof fromCells>[0][]).map(fromCells);
      }
    } finally {
      signal?.removeEventListener('abort', close);
      close();
    }
  }

  // The end.

  /**
   * Ends the engine: a run that is under way is interrupted and goes on with the next one, the file
   * is closed. Nothing of the manager keeps the process alive then.
   */
  close(): Promise<void> {
    return (this.#closing ??= this.#end(() => called(this.#native.close())));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /**
   * Takes everything of Syncline out of the file and closes the manager. The rows stay. Gives how
   * many transactions had not reached the server.
   */
  async detach(): Promise<number> {
    let unsent = 0;
    this.#closing = this.#end(async () => {
      try {
        unsent = Number(await called(this.#native.call('{"call":"detach"}')));
      } finally {
        await this.#native.close();
      }
    });
    await this.#closing;
    return unsent;
  }

  /** @internal */
  async ask<T>(call: string, args: object = {}): Promise<T> {
    return JSON.parse(await called(this.#native.call(JSON.stringify({ call, ...args })))) as T;
  }

  /** @internal */
  async registerHandler(kind: string, handler: Ask): Promise<void> {
    await called(this.#native.register(kind, handler));
  }

  async #end(end: () => Promise<void>): Promise<void> {
    clearInterval(this.#keepAlive);
    try {
      await end();
    } finally {
      this.#isTaken = false;
      if (managers.get(this.path) === this) managers.delete(this.path);
    }
  }

  async #run(
    operation: Operation,
    tables: string[] | null | undefined,
    resolver: ConflictResolver | null | undefined,
    onProgress: OnProgress | null | undefined,
    { signal, dryRun = false, isBackground = false }: RunOptions & { isBackground?: boolean } = {},
  ): Promise<SyncResult> {
    if (!this.#provider && !this.#closing && !isBackground) {
      const message = 'Not connected: no server is configured; changes wait in the file';
      const error = new SyncError('no_server', 'not_configured', message);
      this.#tell({ type: 'sync_error', data: { error } });
      throw error;
    }
    const errors: SyncError[] = [];
    const failed = (error: unknown) => {
      const message = `a conflict stays open, its resolver failed: ${messageOf(error)}`;
      errors.push(new SyncError('resolver', 'other', message, { cause: error }));
    };
    let thrown: { error: unknown } | undefined;
    const progressed = (json: string) => {
      const progress = JSON.parse(json) as SyncProgress | null;
      if (!progress || thrown) return;
      try {
        onProgress?.(progress);
      } catch (error) {
        // An app that cannot go on must not believe that it synced.
        thrown = { error };
        run.interrupt();
      }
    };
    const run = this.#native.run(
      JSON.stringify({ operation, tables: tables ?? null, dryRun }),
      onProgress ? progressed : null,
      resolver ? asked(resolver, failed) : null,
    );
    const abort = () => run.interrupt();
    if (signal?.aborted) abort();
    signal?.addEventListener('abort', abort, { once: true });
    try {
      const result = dated<SyncResult>(JSON.parse(await run.done()) as object);
      if (!result.isOffline) this.#isTaken = true;
      result.errors.push(...errors);
      if (thrown) throw thrown.error;
      return result;
    } catch (error) {
      if (thrown) throw thrown.error;
      const failure = fromNative(error);
      const kind = failure instanceof SyncError ? failure.kind : 'other';
      if (REFUSING.has(kind)) this.#isTaken = false;
      throw failure;
    } finally {
      signal?.removeEventListener('abort', abort);
      // Listeners have heard of the run when its promise settles.
      await this.#native.told();
    }
  }

  #configure(settings: Settings): void {
    try {
      this.#native.updateConfig(toNative(settings), toAsk(settings));
    } catch (error) {
      throw fromNative(error);
    }
    this.#settings = settings;
    this.#configured();
  }

  #configured(): void {
    const { url, token, login, tokenProvider, autoSyncEnabled } = this.#settings;
    if (!url || !(token || login || tokenProvider)) {
      this.#provider = null;
    } else if (this.#provider?.url !== url) {
      const provider: SyncProvider = new SyncProvider(
        this,
        url,
        () => this.#provider === provider && this.#isTaken,
      );
      this.#provider = provider;
      this.#isTaken = false;
    }
    clearInterval(this.#keepAlive);
    if (autoSyncEnabled && !this.#closing) this.#keepAlive = setInterval(() => {}, TIMER_MAX);
  }

  #tell(event: SyncEvent): void {
    if (event.type === 'connected') this.#isTaken = true;
    if (event.type === 'disconnected') this.#isTaken = false;
    for (const listener of [...(this.#listeners.get(event.type) ?? [])]) {
      try {
        listener(event);
      } catch (error) {
        // As an EventTarget does: one listener's mistake is not the others', and is not hidden.
        process.nextTick(() => {
          throw error;
        });
      }
    }
  }
}

function toTopic(topic: Topic): NativeTopic {
  if ('key' in topic) return { table: topic.table, key: topic.key.map(toCell) };
  if ('column' in topic) return { ...topic, value: toCell(topic.value) };
  return { table: topic.table };
}

interface NativeHistory {
  changes: (object & { columns: { column: string; before: Cell; after: Cell }[] })[];
}

type NativeConflict = object & { key: Parameters<typeof listFromCells>[0] };

function readConflict(json: NativeConflict): ConflictRecord {
  return dated({ ...json, key: listFromCells(json.key) });
}

function toAnswer(resolution: Resolution | null | undefined): unknown {
  if (resolution && typeof resolution === 'object') return { value: toCell(resolution.value) };
  return resolution ?? null;
}

/** A resolver as the addon calls it: it always answers. */
function asked(resolver: ConflictResolver, failed: (error: unknown) => void): Ask {
  type Case = NativeConflict & Record<'localData' | 'remoteData', Parameters<typeof fromCells>[0]>;
  return async (json) => {
    try {
      const read = JSON.parse(json) as Case;
      const conflict = {
        ...readConflict(read),
        localData: fromCells(read.localData),
        remoteData: fromCells(read.remoteData),
      } as Conflict;
      const answer = await resolver(conflict);
      const isOne = answer === 'local' || answer === 'remote' || answer == null;
      if (!isOne && !(typeof answer === 'object' && 'value' in answer)) {
        throw new TypeError(`it said ${JSON.stringify(answer)}, not 'local', 'remote' or { value }`);
      }
      return JSON.stringify(toAnswer(answer));
    } catch (error) {
      failed(error);
      return 'null';
    }
  };
}
