import { called } from './errors.js';
import { native } from './native.js';

/** Who somebody is. */
export interface User {
  /** What rules see as `auth.uid()`; never anybody else's. */
  id: string;
  email: string;
  emailVerified: boolean;
  /** What the operator says of this user, as rules see it. */
  claims: Record<string, unknown>;
}

/**
 * The accounts of one server. Who signs in has a login that stays on this machine, for all programs
 * of this user, until they sign out: `createSyncManager(file, { url, login: true })` syncs as them,
 * with tokens that renew themselves. Passwords are not kept.
 */
export class Accounts {
  /** The server's address. */
  readonly url: string;

  constructor(url: string) {
    this.url = url;
  }

  /** Makes an account and signs in; null where a mail with a code is on its way to the address. */
  signUp(email: string, password: string): Promise<User | null> {
    return this.#ask('signUp', { email, password });
  }

  /** Signs in. The login takes the place of a former one on this machine. */
  signIn(email: string, password: string): Promise<User> {
    return this.#ask('signIn', { email, password });
  }

  /** Who is signed in on this machine, or null. The server is not asked. */
  whoami(): Promise<User | null> {
    return this.#ask('whoami', {});
  }

  /** Ends the login, here and at the server; with `everywhere` every other login of the account too. */
  async signOut({ everywhere = false } = {}): Promise<void> {
    await this.#ask('signOut', { everywhere });
  }

  /** Changes the password of who is signed in. Other logins of the account end. */
  async changePassword(current: string, password: string): Promise<void> {
    await this.#ask('changePassword', { current, password });
  }

  /** Has a mail sent with a code for another password, if the address has an account: which is not told. */
  async forgotPassword(email: string): Promise<void> {
    await this.#ask('forgotPassword', { email });
  }

  /** Sets another password with the code from a mail. Every login of the account ends. */
  async resetPassword(code: string, password: string): Promise<void> {
    await this.#ask('resetPassword', { code, password });
  }

  /** Confirms an address with the code from a mail. */
  async verifyEmail(code: string): Promise<void> {
    await this.#ask('verifyEmail', { code });
  }

  async #ask<T>(call: string, args: object): Promise<T> {
    return JSON.parse(await called(native().account(this.url, JSON.stringify({ call, ...args })))) as T;
  }
}
