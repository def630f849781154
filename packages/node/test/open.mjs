// A thread that opens a manager, says how that went, and stays.
import { parentPort } from 'node:worker_threads';
import { createSyncManager } from '@syncline/node';

try {
  const sync = await createSyncManager(process.argv[2]);
  sync.startAutoSync();
  parentPort.postMessage('opened');
} catch (error) {
  parentPort.postMessage(error.code);
}
