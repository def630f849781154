// A program that opens a manager and ends in the way that is named.
import { createSyncManager } from '@syncline/node';

const [, , file, how] = process.argv;
const sync = await createSyncManager(file);
sync.addEventListener('sync_completed', () => {});
if (how === 'closed') {
  sync.startAutoSync();
  await sync.sync();
  await sync.setResolver('notifications', () => 'local');
  await sync.close();
} else if (how === 'with auto-sync') {
  sync.startAutoSync();
} else if (how === 'left open') {
  await sync.sync();
} else {
  sync.sync().catch(() => {});
  setTimeout(() => process.exit(), 20);
}
console.log('done');
