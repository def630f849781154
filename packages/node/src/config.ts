import { readFileSync } from 'node:fs';
import { SyncError, messageOf } from './errors.js';
import type { Ask } from './native.js';

/** How a manager behaves. What is left out keeps its default, or what the environment says. */
export interface SyncConfig {
  /** The server, `https://sync.example.com` without a path; needs a token. */
  url?: string | undefined;
  /** Says as whom. */
  token?: string | undefined;
  /** Instead of a token: as who signed in at `url` on this machine (`Accounts`). */
  login?: boolean | undefined;
  /**
   * Instead of a token: is asked for one when it is needed and before the last one ends, for an app
   * with an identity provider of its own. An open connection goes on with it.
   */
  tokenProvider?: TokenProvider | undefined;
  /** Whether auto-sync runs as soon as the manager is open. Off by default. */
  autoSyncEnabled?: boolean | undefined;
  /** Minutes between rounds when nothing seems to have happened: 30; 0 for never. */
  autoSyncInterval?: number | undefined;
  /** How many of the app's own operations are taken from the retry queue at once: 50. */
  batchSize?: number | undefined;
  /** How often an operation of the app's own is tried again, and a connection of one sync: 3. */
  maxRetries?: number | undefined;
  /** Whether auto-sync keeps its connection, so that others' changes arrive at once: true. */
  live?: boolean | undefined;
  /** Without `live`: milliseconds after the last change before a round of auto-sync: 500. */
  debounce?: number | undefined;
  /** Tables that may sync at all; all when left out. */
  tables?: string[] | undefined;
  /** What the user's device list calls this device: the machine's name. */
  deviceName?: string | undefined;
  /** Keys of encrypted columns, as `syncline encryption-key` makes them: the first one seals, all open. */
  encryptionKeys?: string[] | undefined;
  /** Files with such keys, after `encryptionKeys`; readable by their owner alone. */
  encryptionKeyFiles?: string[] | undefined;
  /**
   * Whether a file that meets its first server subscribes to what its rows of tables on demand hang
   * below, so that they stay in it: true.
   */
  subscribeAtAttach?: boolean | undefined;
}

/**
 * Gives a token: another one than before, if that ends soon. `expiresIn`: seconds, where the token
 * does not say it. `signedOut`: nobody is signed in any more, with the reason. When it throws it is
 * asked again later.
 */
export type TokenProvider = () => Promise<
  string | { token: string; expiresIn?: number | undefined } | { signedOut: string }
>;

/** The configuration as it is. Neither token nor keys are shown. */
export interface EffectiveConfig {
  url: string | null;
  login: boolean;
  autoSyncEnabled: boolean;
  autoSyncInterval: number;
  batchSize: number;
  maxRetries: number;
  live: boolean;
  debounce: number;
  tables: string[] | null;
  deviceName: string | null;
  encryptionKeyFiles: string[];
  subscribeAtAttach: boolean;
}

/** @internal */
export interface Settings extends EffectiveConfig {
  token: string | null;
  tokenProvider: TokenProvider | null;
  encryptionKeys: string[];
}

const DEFAULTS: Settings = {
  url: null,
  token: null,
  login: false,
  tokenProvider: null,
  autoSyncEnabled: false,
  autoSyncInterval: 30,
  batchSize: 50,
  maxRetries: 3,
  live: true,
  debounce: 500,
  tables: null,
  deviceName: null,
  encryptionKeys: [],
  encryptionKeyFiles: [],
  subscribeAtAttach: true,
};

type Environment = Record<string, string | undefined>;

function invalid(message: string): SyncError {
  return new SyncError('invalid', 'invalid', message);
}

/**
 * Whether the environment names a server: `SYNCLINE_URL` with `SYNCLINE_TOKEN` or
 * `SYNCLINE_TOKEN_FILE`, or `SUPABASE_URL` with `SUPABASE_ANON_KEY` in apps that were written for
 * those names. Without one the app works as it does with one, offline.
 */
export function isSyncAvailable(): boolean {
  const { env } = process;
  return Boolean(
    (env.SYNCLINE_URL && (env.SYNCLINE_TOKEN || env.SYNCLINE_TOKEN_FILE)) ||
      (env.SUPABASE_URL && env.SUPABASE_ANON_KEY),
  );
}

/**
 * What the environment sets: what a manager begins with.
 * @internal
 */
export function fromEnvironment(env: Environment): Settings {
  const get = (name: string) => env[name]?.trim() || undefined;
  const number = (name: string, otherwise: number) => {
    const text = get(name);
    if (text === undefined) return otherwise;
    if (!/^\d+$/.test(text)) throw invalid(`${name} is \`${text}\`; write a whole number`);
    return Number(text);
  };
  const settings = { ...DEFAULTS };
  const url = get('SYNCLINE_URL');
  const token = get('SYNCLINE_TOKEN') ?? tokenOfFile(get('SYNCLINE_TOKEN_FILE'));
  if (url && token) Object.assign(settings, { url, token });
  const auto = get('SYNC_AUTO_ENABLED')?.toLowerCase();
  if (auto !== undefined) {
    const known = { true: true, 1: true, yes: true, on: true, false: false, 0: false, no: false, off: false };
    const flag = known[auto as keyof typeof known];
    if (flag === undefined) throw invalid(`SYNC_AUTO_ENABLED is \`${auto}\`; write true or false`);
    settings.autoSyncEnabled = flag;
  }
  settings.autoSyncInterval = number('SYNC_INTERVAL_MINUTES', settings.autoSyncInterval);
  settings.batchSize = number('SYNC_BATCH_SIZE', settings.batchSize);
  settings.maxRetries = number('SYNC_MAX_RETRIES', settings.maxRetries);
  settings.deviceName = get('SYNCLINE_DEVICE_NAME') ?? null;
  const keys = get('SYNCLINE_ENCRYPTION_KEY_FILE')?.split(',').map((path) => path.trim());
  settings.encryptionKeyFiles = keys ?? [];
  return checked(settings);
}

function tokenOfFile(path: string | undefined): string | undefined {
  if (!path) return undefined;
  try {
    return readFileSync(path, 'utf8').trim();
  } catch (error) {
    throw invalid(`SYNCLINE_TOKEN_FILE: ${path} cannot be read: ${messageOf(error)}`);
  }
}

/**
 * `settings` with what `config` names.
 * @internal
 */
export function changed(settings: Settings, config: SyncConfig): Settings {
  for (const name of Object.keys(config)) {
    if (!(name in DEFAULTS)) {
      throw invalid(`there is no setting \`${name}\`: ${Object.keys(DEFAULTS).join(', ')}`);
    }
  }
  const named = Object.entries(config).filter(([, value]) => value !== undefined);
  return checked({ ...settings, ...Object.fromEntries(named) });
}

function checked(settings: Settings): Settings {
  const whole = (name: 'batchSize' | 'maxRetries' | 'debounce', least: number) => {
    const value = settings[name];
    if (!Number.isSafeInteger(value) || value < least || value > 0xffff_ffff) {
      throw invalid(`${name} is ${value}; it is a whole number from ${least}`);
    }
  };
  whole('batchSize', 1);
  whole('maxRetries', 0);
  whole('debounce', 0);
  const minutes = settings.autoSyncInterval;
  if (typeof minutes !== 'number' || !(minutes >= 0) || minutes > 60 * 24 * 3650) {
    throw invalid(`autoSyncInterval is ${minutes}; it is a number of minutes, 0 for never`);
  }
  return settings;
}

/**
 * As the addon takes it.
 * @internal
 */
export function toNative(settings: Settings): string {
  const { autoSyncInterval, debounce, tokenProvider: _, ...same } = settings;
  return JSON.stringify({
    ...same,
    autoSyncIntervalMs: Math.round(autoSyncInterval * 60_000),
    debounceMs: debounce,
  });
}

/**
 * The token provider as the addon asks it: it always answers.
 * @internal
 */
export function toAsk({ tokenProvider }: Settings): Ask | null {
  if (!tokenProvider) return null;
  return async () => {
    try {
      const given = await tokenProvider();
      return JSON.stringify(typeof given === 'string' ? { token: given } : given);
    } catch (error) {
      return JSON.stringify({ later: messageOf(error) });
    }
  };
}
