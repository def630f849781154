/** What kind of trouble it is: what a program decides by. */
export type SyncErrorKind =
  | 'not_configured'
  | 'not_connected'
  | 'authentication'
  /** The user took this device off the list; `registerDevice` brings it back. */
  | 'deregistered'
  | 'refused'
  | 'table'
  | 'doubt'
  | 'file'
  | 'invalid'
  | 'not_found'
  | 'query'
  | 'interrupted'
  | 'busy'
  | 'closed'
  | 'other';

/** What an error is where it is part of a result. */
export interface SyncFailure {
  /** A stable, finer name: the server's code, or what happened to the file. */
  code: string;
  kind: SyncErrorKind;
  message: string;
  /** Whether the same call may succeed later without anybody doing anything. */
  retryable: boolean;
}

/**
 * Why something was not done. Nothing is lost: what was not sent waits in the file.
 *
 * Messages of `not_configured` and `not_connected` begin with "Not connected", those of
 * `authentication` with "Authentication failed".
 */
export class SyncError extends Error implements SyncFailure {
  override readonly name = 'SyncError';
  readonly code: string;
  readonly kind: SyncErrorKind;
  readonly retryable: boolean;

  constructor(
    code: string,
    kind: SyncErrorKind,
    message: string,
    options: { retryable?: boolean; cause?: unknown } = {},
  ) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined);
    this.code = code;
    this.kind = kind;
    this.retryable = options.retryable ?? false;
  }

  /** @internal */
  static of(failure: SyncFailure): SyncError {
    const { code, kind, message, retryable } = failure;
    return new SyncError(code, kind, message, { retryable });
  }
}

/**
 * What the addon threw: its message is the JSON of a failure.
 * @internal
 */
export function fromNative(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof SyncError) return error;
  let failure: SyncFailure;
  try {
    failure = JSON.parse(error.message) as SyncFailure;
  } catch {
    return error; // Not from there: Node's own, about the arguments of a call.
  }
  return SyncError.of(failure);
}

/**
 * Awaits a call of the addon; its errors become `SyncError`s that know who called.
 * @internal
 */
export async function called<T>(call: Promise<T>): Promise<T> {
  try {
    return await call;
  } catch (error) {
    throw fromNative(error);
  }
}

/** @internal */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
