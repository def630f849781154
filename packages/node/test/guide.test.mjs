// The guide, block by block: each runs as it stands, with a real server, real files and knex, and
// what it promises is looked at.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConflictResolvers, RetryQueue, PermanentError } from '@syncline/node';
import { blocks, compile, listener } from './guide.mjs';
import { Devices, Server, database, scratch, until } from './support.mjs';

const path = scratch();
const guide = await compile();
const server = await new Server(path).start();
test.after(() => server.stop());

/** Two devices of a user of their own, with what the guide calls them. */
async function devices(t, user) {
  const devices = new Devices(server, path, user);
  t.after(() => devices.close());
  return devices;
}

const statusOf = async (knex, id) => (await knex('notifications').where({ id }).first()).status;

test('nd1 Basic Setup opens a manager of the knex instance that works without a server', async (t) => {
  const knex = await database(path('basic.db'));
  t.after(() => knex.destroy());
  guide.connect(knex);
  const { syncManager } = await guide.run('1. Basic Setup');
  t.after(() => syncManager.close());
  assert.equal(syncManager.path, path('basic.db'));
  const { autoSyncEnabled, autoSyncInterval, batchSize, maxRetries } = syncManager.getConfig();
  assert.deepEqual([autoSyncEnabled, autoSyncInterval, batchSize, maxRetries], [false, 30, 50, 3]);
  assert.equal(syncManager.getProvider(), null);
  await knex('notifications').insert({ id: 'basic', title: 'works offline' });
  assert.equal((await syncManager.getSyncStats()).totalRecords, 0);
});

test('nd1 Optional Supabase Integration connects when the variables are set', async (t) => {
  const user = await devices(t, 'integration');
  const { sync: syncManager } = await user.device('laptop', { config: { url: null, token: null } });
  const taken = { syncManager, authToken: undefined };
  await guide.run('2. Optional Supabase Integration', taken);
  assert.equal(syncManager.getProvider(), null);
  t.after(() => {
    delete process.env.SUPABASE_URL;
    delete process.env.SUPABASE_ANON_KEY;
  });
  process.env.SUPABASE_URL = server.url;
  process.env.SUPABASE_ANON_KEY = 'not a token';
  await assert.rejects(guide.run('2. Optional Supabase Integration', taken), /^SyncError: Authentication/);
  assert.equal(syncManager.getProvider(), null);
  // The key is a token, unless there is another.
  process.env.SUPABASE_ANON_KEY = server.token('integration');
  await guide.run('2. Optional Supabase Integration', taken);
  assert.equal(syncManager.getProvider().isConnected, true);
  process.env.SUPABASE_ANON_KEY = 'any key';
  const authToken = server.token('integration');
  await guide.run('2. Optional Supabase Integration', { syncManager, authToken });
  assert.equal(syncManager.getProvider().isConnected, true);
  assert.equal((await syncManager.getSyncStats()).totalRecords, 0);
});

test('nd1 Seed, Hydrate and Sync move the rows that they name', async (t) => {
  const user = await devices(t, 'moves');
  const laptop = await user.device('laptop');
  await laptop.knex('notifications').insert([{ id: 'm1', title: 'Milk' }, { id: 'm2', title: 'Bread' }]);
  await laptop.knex('projects').insert({ id: 'm3', name: 'House' });

  const seeding = listener();
  const seeded = await guide.run('Seed (Backup)', { syncManager: laptop.sync, ...seeding });
  assert.equal(seeded.result.recordsProcessed, 3);
  assert.equal(seeded.result.sent.created, 3);
  assert.equal(seeding.lines().at(-1), 'Seeded 3 records');
  assert.match(seeding.lines().at(-2), /^100% - \S+/);

  const phone = await user.device('phone', { tables: [] });
  const hydrating = listener();
  const restored = await guide.run('Hydrate (Restore)', { syncManager: phone.sync, ...hydrating });
  assert.equal(restored.result.recordsProcessed, 2);
  assert.equal(hydrating.lines().at(-1), 'Restored 2 records');
  assert.deepEqual(await phone.knex('notifications').orderBy('id').pluck('title'), ['Milk', 'Bread']);
  assert.equal(await phone.knex.schema.hasTable('projects'), false);

  await phone.knex('notifications').insert({ id: 'm4', title: 'Salt' });
  await laptop.knex('notifications').where({ id: 'm1' }).update({ title: 'Oat milk' });
  await laptop.sync.sync();
  const syncing = listener();
  const synced = await guide.run('Sync (Two-way)', { syncManager: phone.sync, ...syncing });
  assert.deepEqual([synced.result.sent.created, synced.result.received.updated], [1, 1]);
  assert.equal(syncing.lines().at(-1), 'Synced 2 records with 0 conflicts');
  assert.deepEqual(await phone.knex('notifications').orderBy('id').pluck('title'), ['Oat milk', 'Bread', 'Salt']);

  await phone.knex('notifications').where({ id: 'm2' }).delete();
  await guide.run('Selective Sync', { syncManager: phone.sync });
  await laptop.sync.sync();
  assert.deepEqual(await laptop.knex('notifications').orderBy('id').pluck('title'), ['Oat milk', 'Salt']);
});

/** Two devices on which one notification was changed differently; the laptop's came first. */
async function conflicting(t, id, { here, there, isLater = true }) {
  const user = await devices(t, id);
  const [laptop, phone] = [await user.device('laptop'), await user.device('phone')];
  await laptop.knex('notifications').insert({ id, title: id, status: 'new' });
  await laptop.sync.sync();
  await phone.sync.sync();
  const edit = ({ knex }, status) => knex('notifications').where({ id }).update({ status });
  if (!isLater) {
    await edit(phone, here);
    await phone.sync.getSyncStats(); // looks at the file: it was written by now
  }
  await edit(laptop, there);
  await laptop.sync.sync();
  if (isLater) await edit(phone, here);
  return { laptop, phone, id };
}

test('nd1 Built-in Strategies decide as they say', async (t) => {
  const strategies = await guide.run('Built-in Strategies');
  const [newest, local, remote, notification] = strategies.map(({ resolver }) => resolver);
  assert.equal(newest, ConflictResolvers.newestWins);
  for (const [name, resolver, here, isLater, expected] of [
    ['newest-later', newest, 'mine', true, 'mine'],
    ['newest-earlier', newest, 'mine', false, 'theirs'],
    ['local', local, 'mine', false, 'mine'],
    ['remote', remote, 'mine', true, 'theirs'],
    ['notification', notification, 'read', false, 'read'],
  ]) {
    const { phone, laptop, id } = await conflicting(t, name, { here, there: 'theirs', isLater });
    const result = await phone.sync.sync(undefined, resolver);
    assert.deepEqual(result.conflicts.map((conflict) => conflict.entityType), ['notifications'], name);
    assert.deepEqual(result.errors, []);
    await phone.sync.sync();
    await laptop.sync.sync();
    assert.equal(await statusOf(phone.knex, id), expected, name);
    assert.equal(await statusOf(laptop.knex, id), expected, name);
    assert.equal((await phone.sync.getSyncStats()).conflictsResolved, 1, name);
  }
});

test('nd1 Custom Resolver decides by what it is shown of a conflict', async (t) => {
  for (const [id, here, isLater, expected] of [
    ['custom-read', 'read', false, 'read'],
    ['custom-later', 'mine', true, 'mine'],
    ['custom-earlier', 'mine', false, 'theirs'],
  ]) {
    const { phone, laptop } = await conflicting(t, id, { here, there: 'theirs', isLater });
    await guide.run('Custom Resolver', { syncManager: phone.sync });
    await phone.sync.sync();
    await laptop.sync.sync();
    assert.equal(await statusOf(laptop.knex, id), expected, id);
  }
});

test('nd1 Factory Resolvers are for notifications, projects and settings', async () => {
  const made = await guide.run('Factory Resolvers');
  const conflict = (mine, theirs, isLater) => ({
    entityType: 'any',
    column: 'c',
    localData: { c: mine },
    remoteData: { c: theirs },
    localTimestamp: new Date(isLater ? 2 : 1),
    remoteTimestamp: new Date(isLater ? 1 : 2),
  });
  assert.equal(await made.notificationResolver(conflict('archived', 'read', false)), 'local');
  assert.equal(await made.notificationResolver(conflict('new', 'read', true)), 'remote');
  assert.equal(await made.projectResolver(conflict('words', '', false)), 'local');
  assert.equal(await made.projectResolver(conflict('words', 'others', false)), 'remote');
  const joined = await made.settingsResolver(conflict('{"a":1,"b":1}', '{"b":2,"c":2}', true));
  assert.deepEqual(JSON.parse(joined.value), { a: 1, b: 1, c: 2 });
});

test('nd1 Device Management names, lists and removes devices', async (t) => {
  const user = await devices(t, 'devices');
  const [laptop, phone] = [await user.device('laptop'), await user.device('phone')];
  await laptop.sync.sync();
  await phone.sync.sync();
  const registering = listener();
  await guide.run('Device Registration', { syncManager: laptop.sync, ...registering });
  const { deviceId: own } = await laptop.sync.getLocalDevice();
  assert.match(registering.lines()[0], new RegExp(`^Device: \\S.* \\(${own}\\)$`));
  await laptop.sync.sync();
  assert.equal((await laptop.sync.getLocalDevice()).deviceName, 'My Laptop');

  const provider = laptop.sync.getProvider();
  const { deviceId } = await phone.sync.getLocalDevice();
  const listing = listener();
  const { devices: found } = await guide.run('Multi-Device Sync', { provider, deviceId, ...listing });
  assert.deepEqual(listing.lines(), ['Found 2 registered devices']);
  const mine = found.find((device) => device.isThis);
  assert.deepEqual([mine.deviceId, mine.deviceName], [own, 'My Laptop']);
  assert.ok(Date.now() - mine.lastSeen < 60_000);

  await assert.rejects(phone.sync.sync(), { kind: 'deregistered' });
  assert.equal(phone.sync.getProvider().isConnected, false);
  assert.equal((await phone.sync.getLocalDevice()).isDeregistered, true);
  assert.equal((await provider.getRegisteredDevices()).length, 1);
  // Its user wants it back.
  await phone.sync.getProvider().registerDevice('Phone again');
  await phone.sync.sync();
  const names = (await provider.getRegisteredDevices()).map((device) => device.deviceName);
  assert.deepEqual(names.sort(), ['My Laptop', 'Phone again']);
});

test('nd1 nd6 Sync Events tell of a run, of its failure and of a conflict', async (t) => {
  const { phone } = await conflicting(t, 'events', { here: 'mine', there: 'theirs' });
  const heard = listener();
  await guide.run('Sync Events', { syncManager: phone.sync, ...heard });
  const result = await phone.sync.sync();
  const said = (first) => heard.said.filter(([words]) => words === first).map(([, data]) => data);
  assert.deepEqual(said('Sync started:'), [{ operation: 'sync' }]);
  assert.equal(said('Progress:').at(-1).percentage, 100);
  assert.deepEqual(said('Sync completed:'), [result]);
  assert.deepEqual(said('Conflict detected:'), result.conflicts);
  assert.equal(result.conflicts.length, 1);
  phone.sync.disconnect();
  await assert.rejects(phone.sync.sync());
  assert.match(said('Sync error:')[0].message, /^Not connected/);
});

test('nd1 Auto-Sync follows what others write, until it is disabled', async (t) => {
  const user = await devices(t, 'auto');
  const [laptop, phone] = [await user.device('laptop'), await user.device('phone')];
  await guide.run('Enable Auto-Sync', { syncManager: phone.sync });
  assert.deepEqual(
    [phone.sync.getConfig().autoSyncEnabled, phone.sync.getConfig().autoSyncInterval],
    [true, 15],
  );
  await laptop.knex('projects').insert({ id: 'auto1', name: 'arrives' });
  await laptop.sync.sync();
  await until('the project', async () => (await phone.knex('projects')).length === 1);
  await guide.run('Disable Auto-Sync', { syncManager: phone.sync });
  assert.equal(phone.sync.getConfig().autoSyncEnabled, false);
  await laptop.knex('projects').insert({ id: 'auto2', name: 'waits' });
  await laptop.sync.sync();
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.equal((await phone.knex('projects')).length, 1);
});

test('nd1 Retry Queue counts, clears and tries again', async (t) => {
  const user = await devices(t, 'queue');
  const { knex, sync } = await user.device('laptop', { config: { maxRetries: 0 } });
  const counting = listener();
  const { retryQueue, stats } = await guide.run('Queue Statistics', { knex, ...counting });
  assert.ok(retryQueue instanceof RetryQueue);
  assert.deepEqual(counting.lines(), ['Pending: 0, Failed: 0']);
  assert.equal(stats.completed, 0);

  let isBroken = true;
  const done = [];
  await retryQueue.register('mail', ({ payload }) => {
    if (isBroken) throw payload.fatal ? new PermanentError('no such address') : new Error('no mail today');
    done.push(payload.to);
  });
  await retryQueue.enqueue('mail', { to: 'ana' });
  await retryQueue.enqueue('mail', { to: 'ben', fatal: true });
  await knex('projects').insert({ id: 'q1', name: 'forbidden' });
  await sync.sync();
  await until('the failures', async () => (await retryQueue.getStats()).failed === 3);
  const refused = (await retryQueue.getChangesets()).filter(({ state }) => state === 'refused');
  assert.deepEqual(refused.map(({ tables, changes }) => [tables, changes]), [[['projects'], 1]]);
  const errors = (await retryQueue.getOperations()).map((operation) => operation.error);
  assert.deepEqual(errors, ['no mail today', 'no such address']);

  // The refused transaction fails again, the mails are sent, and what failed is forgotten.
  isBroken = false;
  await guide.run('Manual Queue Management', { retryQueue });
  await until('the mails', () => done.length === 2);
  assert.deepEqual(done, ['ana', 'ben']);
  await sync.sync();
  await until('the numbers', async () => {
    const { pending, failed, completed } = await retryQueue.getStats();
    return pending === 0 && failed <= 1 && completed === 2;
  });
  // None of them is a day old; with no age all are forgotten.
  assert.equal(await retryQueue.clearCompleted(24), 0);
  assert.equal(await retryQueue.clearCompleted(), 2);
});

test('nd1 Sync Statistics and Debug Mode tell how it is going', async (t) => {
  const user = await devices(t, 'stats');
  const { knex, sync: syncManager } = await user.device('laptop');
  await knex('projects').insert({ id: 's1', name: 'one' });
  await syncManager.sync();
  await knex('projects').insert({ id: 's2', name: 'two' });
  const telling = listener();
  const { stats } = await guide.run('Sync Statistics', { syncManager, ...telling });
  assert.ok(Date.now() - stats.lastSyncTime.getTime() < 60_000);
  assert.deepEqual(telling.lines(), [
    'Total records: 1',
    `Last sync: ${stats.lastSyncTime}`,
    'Pending operations: 1',
    'Conflicts resolved: 0',
    `${stats.syncHistory[0].timestamp}: sync - 1 records`,
  ]);
  const debugging = listener();
  await guide.run('Debug Mode', { syncManager, ...debugging });
  const [[, config], [, device], [, again]] = debugging.said;
  assert.equal(config.url, server.url);
  assert.ok(!JSON.stringify(debugging.said).includes(server.token('stats')), 'no token is shown');
  assert.match(device.deviceId, /^[0-9a-f]{32}$/);
  assert.deepEqual(again, stats);
});

test('nd1 Provider Status and Health Check say whether the server takes the device', async (t) => {
  const user = await devices(t, 'health');
  const { sync: syncManager } = await user.device('laptop', { config: { url: null, token: null } });
  const { healthCheck } = await guide.run('Health Check', { syncManager });
  const statusNow = async () => (await healthCheck()).status;
  assert.equal(await statusNow(), 'no-provider');

  const own = await new Server(scratch()).start();
  t.after(() => own.stop().catch(() => {}));
  await syncManager.createSupabaseProvider(own.url, own.token('health'));
  assert.equal(await statusNow(), 'healthy');
  const telling = listener();
  await guide.run('Provider Status', { syncManager, ...telling });
  assert.deepEqual(telling.lines(), ['Provider: syncline', 'Connected: true', 'Connection valid: true']);

  await own.stop();
  assert.equal(await statusNow(), 'invalid');
  assert.equal(await statusNow(), 'disconnected');
  await own.restart();
  assert.equal(await syncManager.getProvider().validateConnection(), true);
  assert.equal(await statusNow(), 'healthy');
});

test('nd1 nd4 Common Errors are told apart by their messages', async (t) => {
  const user = await devices(t, 'errors');
  const { knex, sync: syncManager } = await user.device('laptop', { config: { url: null, token: null } });
  const said = async () => {
    const telling = listener();
    await guide.run('Common Errors', { syncManager, ...telling });
    return telling.lines();
  };
  assert.deepEqual(await said(), ['Sync provider not connected']);
  syncManager.updateConfig({ url: 'http://127.0.0.1:9', token: 'none' });
  assert.deepEqual(await said(), ['Sync provider not connected']);
  syncManager.updateConfig({ url: server.url, token: 'not a token' });
  assert.deepEqual(await said(), ['Authentication failed']);
  syncManager.updateConfig({ token: server.token('errors') });
  assert.deepEqual(await said(), []);
  await syncManager.close();
  const [failed] = await said();
  assert.match(failed, /^Sync failed: SyncError: the sync manager was closed/);
  assert.ok(await knex('projects'));
});

test('nd1 Graceful Degradation, Batch Sizes and Debounced Sync hold with a server and without', async (t) => {
  const user = await devices(t, 'degraded');
  const { knex, sync: syncManager } = await user.device('laptop', { config: { url: null, token: null } });
  const availability = async () => {
    const telling = listener();
    await guide.run('Graceful Degradation', telling);
    return telling.lines();
  };
  assert.deepEqual(await availability(), ['Running in offline-only mode']);
  t.after(() => {
    delete process.env.SYNCLINE_URL;
    delete process.env.SYNCLINE_TOKEN;
  });
  Object.assign(process.env, { SYNCLINE_URL: server.url, SYNCLINE_TOKEN: 'some' });
  assert.deepEqual(await availability(), ['Cloud sync available']);

  await guide.run('Batch Sizes', { syncManager });
  assert.equal(syncManager.getConfig().batchSize, 100);

  // Five seconds are long for a test: the pause is looked at and cut short.
  const pauses = [];
  const quick = (work, pause) => {
    pauses.push(pause);
    return setTimeout(work, 50);
  };
  const failing = listener();
  const { triggerSync } = await guide.run('Debounced Sync', { syncManager, setTimeout: quick, ...failing });
  const completed = [];
  syncManager.addEventListener('sync_completed', ({ data }) => completed.push(data.result));
  triggerSync();
  await new Promise((resolve) => setTimeout(resolve, 200));
  assert.deepEqual(failing.said, [], 'without a server a sync in the background ends well');

  await syncManager.connect(server.url, server.token('degraded'));
  await knex('projects').insert({ id: 'd1', name: 'once' });
  for (let i = 0; i < 3; i++) triggerSync();
  await until('the sync', () => completed.length > 0);
  assert.deepEqual(pauses, [5000, 5000, 5000, 5000]);
  await new Promise((resolve) => setTimeout(resolve, 200));
  assert.equal(completed.filter((result) => !result.isOffline).length, 1);
  assert.equal(completed.at(-1).sent.created, 1);
});

test('nd1 nd7 Environment Variables are those that the guide names', async (t) => {
  const user = await devices(t, 'environment');
  const [variables] = blocks('bash').filter(({ code }) => code.includes('SYNC_AUTO_ENABLED'));
  const names = variables.code.match(/^[A-Z_]+(?==)/gm);
  const values = variables.code.match(/(?<=^SYNC_\w+=).*/gm);
  assert.deepEqual(values, ['true', '30', '50', '3']);
  const set = { SYNC_AUTO_ENABLED: 'true', SYNC_INTERVAL_MINUTES: '7', SYNC_BATCH_SIZE: '8', SYNC_MAX_RETRIES: '9' };
  assert.deepEqual(names, ['SUPABASE_URL', 'SUPABASE_ANON_KEY', ...Object.keys(set)]);
  Object.assign(process.env, set);
  t.after(() => Object.keys(set).forEach((name) => delete process.env[name]));
  const { sync } = await user.device('laptop', { config: { url: null, token: null } });
  const { autoSyncEnabled, autoSyncInterval, batchSize, maxRetries } = sync.getConfig();
  assert.deepEqual([autoSyncEnabled, autoSyncInterval, batchSize, maxRetries], [true, 7, 8, 9]);
  process.env.SYNC_BATCH_SIZE = 'many';
  await assert.rejects(user.device('phone'), /SYNC_BATCH_SIZE is `many`; write a whole number/);
});

test('nd1 no block of the guide was forgotten', () => {
  assert.deepEqual(guide.forgotten(), []);
});
