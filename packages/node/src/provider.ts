import type { SyncManager } from './manager.js';
import { dated, type Device, type LocalDevice } from './types.js';

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

  /**
   * Gives this device a name, which the user's list has after the next connection; a device that
   * was taken off the list comes back then, under another id. Needs no connection.
   */
  registerDevice(name: string): Promise<LocalDevice> {
    return this.#manager.registerDevice(name);
  }

  /** The user's devices, those that were connected last first. */
  async getRegisteredDevices(): Promise<Device[]> {
    const found = await this.#manager.ask<object[]>('devices');
    return found.map((device) => dated(device));
  }

  /** Gives one of the user's devices another name. */
  async renameDevice(deviceId: string, name: string): Promise<void> {
    await this.#manager.ask('renameDevice', { id: deviceId, name });
  }

  /**
   * Takes one of the user's devices off the list: it does not sync any more until somebody
   * registers it anew there. It keeps its rows and what it has not sent; with `wipe` it removes
   * them with its next contact, also if it was taken off before.
   */
  async deregisterDevice(deviceId: string, options: { wipe?: boolean } = {}): Promise<void> {
    await this.#manager.ask('deregisterDevice', { id: deviceId, wipe: options.wipe ?? false });
  }
}
