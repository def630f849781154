// The addon (crates/node). Everything goes through it as JSON.
import { createRequire } from 'node:module';
import { SyncError } from './errors.js';

/** @internal */
export interface NativeRun {
  done(): Promise<string>;
  interrupt(): void;
}

/** @internal */
export interface NativeLive {
  next(): Promise<string | null>;
  close(): void;
}

/** @internal Functions that it is given must not throw, and what `Ask` gives must not reject. */
export type Tell = (json: string) => void;
/** @internal */
export type Ask = (json: string) => Promise<string>;

/** @internal */
export interface NativeManager {
  call(json: string): Promise<string>;
  run(json: string, onProgress: Tell | null, resolver: Ask | null): NativeRun;
  updateConfig(json: string, tokens: Ask | null): void;
  foreground(): void;
  told(): Promise<void>;
  setResolver(table: string, resolver: Ask): Promise<void>;
  register(kind: string, handler: Ask): Promise<void>;
  watch(sql: string, params: string): Promise<NativeLive>;
  close(): Promise<void>;
}

/** @internal */
export interface Native {
  open(path: string, settings: string, onEvent: Tell, tokens: Ask | null): Promise<NativeManager>;
  account(url: string, call: string): Promise<string>;
  decide(name: string, conflict: string): Promise<string>;
  newId(): string;
}

let loaded: Native | undefined;

/**
 * The addon: the one built beside this package (scripts/node), or that of the platform's package.
 * @internal
 */
export function native(): Native {
  if (loaded) return loaded;
  const require = createRequire(import.meta.url);
  const platform = `${process.platform}-${process.arch}`;
  const places = ['../native/syncline.node', `@syncline/node-${platform}`];
  const failures: string[] = [];
  for (const place of places) {
    try {
      return (loaded = require(place) as Native);
    } catch (error) {
      failures.push((error as Error).message.split('\n')[0] ?? '');
    }
  }
  throw new SyncError(
    'no_addon',
    'other',
    `there is no addon for ${platform}: install @syncline/node without --omit=optional, or build ` +
      `it with scripts/node (${failures.join('; ')})`,
  );
}
