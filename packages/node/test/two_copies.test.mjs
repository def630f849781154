// The app's SQLite and the addon's are two copies in one process. Their locks must hold all the same.
import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import Sqlite from 'better-sqlite3';
import { Devices, Server, scratch } from './support.mjs';

const path = scratch();
const server = await new Server(path).start();

for (const journal of ['wal', 'delete']) {
  test(`nd2 a file in mode ${journal} survives both copies writing and closing`, async (t) => {
    const devices = new Devices(server, path, `busy-${journal}`);
    t.after(() => devices.close());
    const { knex, sync } = await devices.device('laptop', { journal });
    const other = await devices.device('phone', { journal });
    await knex('notifications').insert({ id: `${journal}-n0`, title: '', status: 'new' });
    await sync.sync();
    await other.sync.sync();
    let written = 0;
    for (let round = 0; round < 12; round++) {
      const syncing = [sync.sync(), other.sync.sync()];
      for (let i = 0; i < 10; i++) {
        await knex('projects').insert({ id: `${journal}-a${round}-${i}`, name: 'here', budget: i });
        await other.knex('projects').insert({ id: `${journal}-b${round}-${i}`, name: 'there', budget: i });
        written += 2;
      }
      // Another connection of the app, that comes and goes: closing it must not drop our locks.
      const visitor = new Sqlite(sync.path, { timeout: 30_000 });
      visitor.exec(`UPDATE notifications SET title = 'round ${round}'`);
      visitor.close();
      await Promise.all(syncing);
    }
    for (let i = 0; i < 2; i++) {
      await sync.sync();
      await other.sync.sync();
    }
    for (const app of [knex, other.knex]) {
      assert.deepEqual(await app.raw('PRAGMA integrity_check'), [{ integrity_check: 'ok' }]);
      assert.deepEqual(await app('projects').count({ n: '*' }), [{ n: written }]);
    }
    // Closed and opened again while the app has its connection, the file is still locked right.
    await sync.close();
    await knex('projects').insert({ id: `${journal}-last`, name: 'after' });
    const again = await devices.manager(knex, { url: server.url, token: server.token(devices.user) });
    await again.sync();
    await other.sync.sync();
    assert.equal((await other.knex('projects').where({ name: 'after' })).length, 1);
    // The app's last connection goes, and must take nothing from under the manager that goes on.
    await other.knex.destroy();
    await knex('projects').insert({ id: `${journal}-late`, name: 'late' });
    await again.sync();
    await other.sync.sync();
    const late = new Sqlite(other.sync.path, { readonly: true });
    assert.equal(late.prepare("SELECT count(*) FROM projects WHERE name = 'late'").pluck().get(), 1);
    assert.equal(late.pragma('integrity_check', { simple: true }), 'ok');
    late.close();
  });
}

test('nd2 a transaction of the app keeps its lock while a manager reads and closes', async (t) => {
  const devices = new Devices(server, path, 'locks');
  t.after(() => devices.close());
  const { knex, sync } = await devices.device('laptop', { journal: 'delete' });
  await sync.sync();
  const trx = await knex.transaction();
  await trx('projects').insert({ id: 'p', name: 'unfinished' });
  await sync.getStatus();
  await sync.close();
  // Another process asks: POSIX locks that one close in this process dropped would let it in.
  const child = fork(new URL('./try_lock.mjs', import.meta.url), [sync.path]);
  const [said] = await once(child, 'message');
  assert.equal(said, 'SQLITE_BUSY');
  await trx.commit();
  assert.equal((await knex('projects')).length, 1);
});

test.after(() => server.stop());
