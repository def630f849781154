import type { SyncManager } from './manager.js';

/** The server that a manager syncs with. */
export class SyncProvider {
  readonly name = 'syncline';
  /** Its address. */
  readonly url: string;
  readonly #manager: SyncManager;
  readonly #connected: () => boolean;

  /** @internal */
  constructor(manager: SyncManager, url: string, connected: () => boolean) {
    this.#manager = manager;
    this.url = url;
    this.#connected = connected;
  }

  /** Whether the server took this device when it was last asked or last synced with. */
  get isConnected(): boolean {
    return this.#connected();
  }

  /** Asks the server now whether it takes this device. */
  async validateConnection(): Promise<boolean> {
    return (await this.#manager.getHealth()).status === 'healthy';
  }
}
