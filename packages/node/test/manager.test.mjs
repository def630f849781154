// What the guide does not show: cancellation, mistakes of callbacks, values, live queries, the end.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { RetryQueue, SyncError, createSyncManager, newId } from '@syncline/node';
import { Devices, Server, database, scratch, until } from './support.mjs';

const path = scratch();
const server = await new Server(path).start();
test.after(() => server.stop());

async function devices(t, user) {
  const devices = new Devices(server, path, user);
  t.after(() => devices.close());
  return devices;
}

test('nd7 a file has one manager, by whatever name', async (t) => {
  const user = await devices(t, 'one');
  const { knex, sync } = await user.device('laptop');
  await assert.rejects(createSyncManager(sync.path), { code: 'already_open' });
  await assert.rejects(createSyncManager(`${path('.')}/./one-laptop.db`), { code: 'already_open' });
  const worker = new Worker(new URL('./open.mjs', import.meta.url), { argv: [sync.path] });
  assert.deepEqual(await once(worker, 'message'), ['already_open']);
  await sync.close();
  const again = await user.manager(knex, {});
  assert.equal(again.path, sync.path);
  await again.close();
  // A thread that ends in the middle lets go of its file.
  const dying = new Worker(new URL('./open.mjs', import.meta.url), { argv: [sync.path] });
  assert.deepEqual(await once(dying, 'message'), ['opened']);
  await dying.terminate();
  await until('the file', () => user.manager(knex, {}).catch(() => false));
});

test('nd4 nd7 what cannot be a file, a setting or a call is named', async (t) => {
  await assert.rejects(createSyncManager(':memory:'), /the database is in memory/);
  await assert.rejects(createSyncManager({ client: { config: {} } }), /give the path/);
  await assert.rejects(createSyncManager(path('x.db'), { intervall: 1 }), /no setting `intervall`/);
  await assert.rejects(createSyncManager(path('x.db'), { autoSyncInterval: -1 }), /is -1; it is a number/);
  await assert.rejects(createSyncManager(path('no/such/folder/x.db')), { kind: 'file' });
  await assert.rejects(new RetryQueue(path('x.db')).getStats(), { code: 'closed' });
  const user = await devices(t, 'calls');
  const { sync } = await user.device('laptop');
  const before = sync.getConfig();
  assert.throws(() => sync.updateConfig({ url: 'nonsense' }), { code: 'bad_url' });
  assert.deepEqual(sync.getConfig(), before);
  await assert.rejects(sync.getConflict('x'), { kind: 'not_found' });
  await assert.rejects(new RetryQueue(sync).discard('x'), /no id of a changeset/);
  await assert.rejects(sync.watch('DELETE FROM projects').next(), { kind: 'query' });
  await assert.rejects(sync.watch('SELEC 1').next(), SyncError);
});

test('a signal ends a run, and the next one goes on', async (t) => {
  const user = await devices(t, 'signal');
  const { knex, sync } = await user.device('laptop');
  // So many that the run is far from its end when it is told to stop.
  await knex.raw(
    `WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 30000)
     INSERT INTO projects (id, name) SELECT 'sig' || i, printf('%0100d', i) FROM c`,
  );
  const early = AbortSignal.abort();
  await assert.rejects(sync.seed(null, undefined, { signal: early }), { code: 'interrupted' });
  const late = new AbortController();
  const running = sync.seed(null, ({ phase }) => phase === 'sending' && late.abort(), { signal: late.signal });
  await assert.rejects(running, { kind: 'interrupted' });
  await sync.sync();
  assert.equal((await sync.getSyncStats()).totalRecords, 30000);
});

test('a dry run says what would be sent, and sends nothing', async (t) => {
  const user = await devices(t, 'dry');
  const { knex, sync } = await user.device('laptop');
  await knex('projects').insert({ id: 'dry', name: 'stays' });
  const told = await sync.sync(null, null, null, { dryRun: true });
  assert.deepEqual([told.dryRun, told.sent.created], [true, 1]);
  const done = await sync.sync();
  assert.deepEqual([done.dryRun, done.sent.created], [false, 1]);
});

test('nd6 callbacks that throw stop neither the engine nor the process', async (t) => {
  const user = await devices(t, 'throws');
  const [laptop, phone] = [await user.device('laptop'), await user.device('phone')];
  await laptop.knex('notifications').insert({ id: 'thrown', status: 'new' });
  const mistake = new Error('a mistake of the app');
  await assert.rejects(
    laptop.sync.sync(null, null, () => {
      throw mistake;
    }),
    mistake,
  );
  await laptop.sync.sync();
  await phone.sync.sync();
  for (const { knex, status } of [{ ...laptop, status: 'a' }, { ...phone, status: 'b' }]) {
    await knex('notifications').update({ status });
  }
  await laptop.sync.sync();
  for (const resolver of [
    () => {
      throw mistake;
    },
    async () => 'mine',
  ]) {
    const { errors } = await phone.sync.sync(null, resolver);
    assert.match(errors[0].message, /a conflict stays open, its resolver failed: (a mistake|it said "mine")/);
  }
  const [conflict] = await phone.sync.getConflicts();
  assert.deepEqual([conflict.entityType, conflict.column, conflict.key], ['notifications', 'status', ['thrown']]);
  assert.deepEqual([conflict.base, conflict.mine, conflict.theirs], ['new', 'b', 'a']);
  assert.equal((await phone.sync.getRowStatus('notifications', ['thrown'])).state, 'conflict');
  await phone.sync.resolveConflict(conflict.id, { value: 'c' });
  await phone.sync.sync();
  await laptop.sync.sync();
  assert.deepEqual(await laptop.knex('notifications').pluck('status'), ['c']);

  // A listener's mistake is the process's, as with any EventTarget; other listeners hear all the same.
  const uncaught = process.listeners('uncaughtException');
  process.removeAllListeners('uncaughtException');
  const caught = once(process, 'uncaughtException');
  let heard = 0;
  phone.sync.addEventListener('sync_started', () => {
    throw mistake;
  });
  phone.sync.addEventListener('sync_started', () => heard++);
  await phone.sync.sync();
  assert.deepEqual(await caught, [mistake, 'uncaughtException']);
  uncaught.forEach((listener) => process.on('uncaughtException', listener));
  assert.equal(heard, 1);
});

test('a resolver of a table decides what is open and what comes', async (t) => {
  const user = await devices(t, 'standing');
  const [laptop, phone] = [await user.device('laptop'), await user.device('phone')];
  await laptop.knex('notifications').insert({ id: 'standing', status: 'new' });
  await laptop.sync.sync();
  await phone.sync.sync();
  await laptop.knex('notifications').update({ status: 'a' });
  await laptop.sync.sync();
  await phone.knex('notifications').update({ status: 'b' });
  await phone.sync.sync();
  const seen = [];
  await phone.sync.setResolver('notifications', (conflict) => {
    seen.push([conflict.localData.status, conflict.remoteData.status, conflict.column]);
    return 'local';
  });
  await until('the decision', async () => (await phone.sync.getConflicts()).length === 0);
  assert.deepEqual(seen, [['b', 'a', 'status']]);
});

test('nd5 values arrive as they are: blobs, bigints and what a live query shows of them', async (t) => {
  const user = await devices(t, 'values');
  const [laptop, phone] = [await user.device('laptop'), await user.device('phone')];
  const picture = Buffer.from([0, 1, 254, 255]);
  await laptop.knex.raw("INSERT INTO projects VALUES ('v', 'big', 9007199254740993, ?)", [picture]);
  await phone.sync.sync();
  const live = phone.sync.watch('SELECT * FROM projects WHERE id = ?', ['v']);
  assert.deepEqual((await live.next()).value, []);
  await laptop.sync.sync();
  const coming = live.next();
  await phone.sync.sync();
  assert.deepEqual((await coming).value, [{ id: 'v', name: 'big', budget: 9007199254740993n, picture }]);
  const abort = new AbortController();
  const ending = phone.sync.watch('SELECT 1 AS one, NULL AS none, 0.5 AS half', [], { signal: abort.signal });
  assert.deepEqual((await ending.next()).value, [{ one: 1, none: null, half: 0.5 }]);
  const end = ending.next();
  abort.abort();
  assert.deepEqual(await end, { value: undefined, done: true });
  const given = [null, -1, 0.1, 2n ** 63n - 1n, -Infinity, 'é"', new Uint8Array([0, 15, 255])];
  const [back] = (await phone.sync.watch('SELECT ?1 a, ?2 b, ?3 c, ?4 d, ?5 e, ?6 f, ?7 g', given).next()).value;
  assert.deepEqual(Object.values(back), [...given.slice(0, -1), Buffer.from([0, 15, 255])]);
  const last = live.next();
  await phone.sync.close();
  assert.equal((await last).done, true);
});

test('the history of a row is told, and a row made again what it was', async (t) => {
  const user = await devices(t, 'history');
  const { knex, sync } = await user.device('laptop', { config: { deviceName: 'My Laptop' } });
  const picture = Buffer.from([7]);
  await knex('projects').insert({ id: 'hist', name: 'first', picture });
  await sync.sync();
  await knex('projects').update({ name: 'second' });
  await sync.sync();
  const { changes, more, knownSince } = await sync.getRowHistory('projects', ['hist']);
  assert.deepEqual(changes.map(({ kind, user, deviceName }) => [kind, user, deviceName]), [
    ['update', 'history', 'My Laptop'],
    ['insert', 'history', 'My Laptop'],
  ]);
  assert.deepEqual(changes[0].columns, [{ column: 'name', before: 'first', after: 'second' }]);
  assert.deepEqual(changes[1].columns.find(({ column }) => column === 'picture').after, picture);
  assert.ok(changes[0].at > changes[1].at && knownSince instanceof Date && !more);
  const page = await sync.getRowHistory('projects', ['hist'], { limit: 1 });
  assert.deepEqual([page.changes.length, page.more], [1, true]);
  assert.equal(await sync.restoreRow('projects', ['hist'], changes[1].version), 'updated');
  assert.deepEqual(await knex('projects').pluck('name'), ['first']);
});

test('a file keeps every change before it met a server', async (t) => {
  const user = await devices(t, 'offline');
  const { knex, sync } = await user.device('laptop', { config: { url: null, token: null } });
  assert.equal(await sync.attach(), true);
  await knex('projects').insert({ id: 'off', name: 'early' });
  assert.equal((await sync.getRowStatus('projects', ['off'])).state, 'pending');
  await sync.connect(server.url, server.token('offline'));
  assert.equal((await sync.sync()).sent.created, 1);
});

test('detaching leaves the rows and nothing of Syncline', async (t) => {
  const user = await devices(t, 'leaves');
  const { knex, sync } = await user.device('laptop');
  await knex('projects').insert({ id: newId(), name: 'mine' });
  await sync.sync();
  await knex('projects').update({ name: 'unsent' });
  await sync.getSyncStats();
  assert.equal(await sync.detach(), 1);
  const tables = await knex('sqlite_master').whereLike('name', '%syncline%');
  assert.deepEqual(tables, []);
  assert.deepEqual(await knex('projects').pluck('name'), ['unsent']);
  await assert.rejects(sync.getStatus(), { kind: 'closed' });
});

test('nd3 a process ends by itself: after close, or with nothing to wait for', async (t) => {
  const user = await devices(t, 'process');
  const program = fileURLToPath(new URL('./ends.mjs', import.meta.url));
  for (const [how, ends] of [
    ['closed', true],
    ['left open', true],
    ['in the middle of a run', true],
    ['with auto-sync', false],
  ]) {
    const file = path(`process-${how.replaceAll(' ', '-')}.db`);
    await (await database(file)).destroy();
    const child = spawn(process.execPath, [program, file, how], {
      env: { ...process.env, SYNCLINE_URL: server.url, SYNCLINE_TOKEN: server.token(user.user) },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const exit = once(child, 'exit');
    if (!ends) {
      await once(child.stdout, 'data');
      await new Promise((resolve) => setTimeout(resolve, 500));
      assert.equal(child.exitCode, null, how);
      child.kill();
    }
    const timer = setTimeout(() => child.kill('SIGKILL'), 20_000);
    assert.deepEqual(await exit, ends ? [0, null] : [null, 'SIGTERM'], how);
    clearTimeout(timer);
    assert.ok(existsSync(file));
  }
});
