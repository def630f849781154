// Whose rows come, and which: subscriptions, encryption keys, tokens that do not last, accounts.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Accounts, createSyncManager } from '@syncline/node';
import { Devices, Server, binary, scratch, until } from './support.mjs';

const path = scratch();
process.env.SYNCLINE_HOME = path('home');
const OWN = 'read = "_owner = auth.uid()"\nwrite = "_owner = auth.uid()"';
const server = await new Server(
  path,
  `
[tables.projects]
columns = { id = "text primary key", name = "text" }
${OWN}

[tables.tasks]
columns = { id = "text primary key", project_id = "text", title = "text" }
read = "project_id IN readable(projects)"
write = "project_id IN readable(projects)"
sync = "on_demand"

[tables.people]
columns = { id = "text primary key", notes = "text encrypted" }
${OWN}
`,
).start();
test.after(() => server.stop());

const TABLES = [
  'CREATE TABLE projects (id TEXT PRIMARY KEY NOT NULL, name TEXT)',
  'CREATE TABLE tasks (id TEXT PRIMARY KEY NOT NULL, project_id TEXT, title TEXT)',
  'CREATE TABLE people (id TEXT PRIMARY KEY NOT NULL, notes TEXT)',
];
const key = () => {
  const file = path(`key-${Math.random()}`);
  execFileSync(binary, ['encryption-key', file]);
  return file;
};
const keys = { encryptionKeyFiles: [key()] };

async function devices(t, user) {
  const devices = new Devices(server, path, user);
  t.after(() => devices.close());
  return devices;
}

test('nd8 rows on demand come when they are asked for, and go', async (t) => {
  const user = await devices(t, 'asks');
  const laptop = await user.device('laptop', { tables: TABLES, config: keys });
  await laptop.knex('projects').insert([{ id: 'p1' }, { id: 'p2' }]);
  await laptop.knex('tasks').insert([
    { id: 't1', project_id: 'p1' },
    { id: 't2', project_id: 'p2' },
  ]);
  await laptop.sync.sync();
  const held = await laptop.sync.getSubscriptions();
  assert.equal(held.length, 2, 'attaching subscribes to what is there');
  assert.equal((await laptop.knex('tasks')).length, 2);

  const phone = await user.device('phone', { tables: TABLES, config: keys });
  const told = [];
  for (const type of ['subscribed', 'released']) {
    phone.sync.addEventListener(type, (event) => told.push(event));
  }
  await phone.sync.sync();
  assert.deepEqual(await phone.knex('tasks'), []);
  const topic = { table: 'projects', key: ['p1'] };
  assert.equal(await phone.sync.subscribe(topic), true);
  assert.equal(await phone.sync.subscribe(topic), false);
  await phone.sync.sync();
  assert.deepEqual((await phone.knex('tasks')).map((task) => task.id), ['t1']);
  assert.deepEqual(told, [{ type: 'subscribed', data: { topic } }]);

  await phone.sync.subscribe({ table: 'tasks', column: 'project_id', value: 'p2' });
  await phone.sync.unsubscribe(topic);
  const [live, ending] = await phone.sync.getSubscriptions();
  assert.deepEqual(live.topic, { table: 'tasks', column: 'project_id', value: 'p2' });
  assert.equal(ending.state, 'ending');
  assert.ok(ending.endsAt > new Date());
  await phone.sync.subscribe(topic);
  await phone.sync.unsubscribe(topic, { keepFor: 0 });
  await phone.sync.sync();
  assert.deepEqual((await phone.knex('tasks')).map((task) => task.id), ['t2']);
  const released = told.filter(({ type }) => type === 'released');
  assert.deepEqual(released, [{ type: 'released', data: { rows: 1 } }]);
  await assert.rejects(phone.sync.subscribe({ table: 'nothing' }), { kind: 'table' });
});

test('nd8 encrypted columns are read with the key, and by nobody without', async (t) => {
  const user = await devices(t, 'seals');
  const text = readFileSync(keys.encryptionKeyFiles[0], 'utf8').trim();
  const config = { encryptionKeys: [text] };
  const laptop = await user.device('laptop', { tables: TABLES, config });
  assert.equal('encryptionKeys' in laptop.sync.getConfig(), false, 'never shown');
  await laptop.knex('people').insert({ id: 'a', notes: 'SECRET-NOTES' });
  await laptop.sync.sync();
  for (const file of readdirSync(server.data)) {
    const found = readFileSync(join(server.data, file)).includes('SECRET-NOTES');
    assert.equal(found, false, file);
  }
  const phone = await user.device('phone', { tables: TABLES, config: keys });
  await phone.sync.sync();
  assert.deepEqual(await phone.knex('people'), [{ id: 'a', notes: 'SECRET-NOTES' }]);

  const stranger = await user.device('none', { tables: TABLES });
  await assert.rejects(stranger.sync.sync(), { code: 'encryption_key_missing' });
  stranger.sync.updateConfig({ encryptionKeyFiles: [key()] });
  await assert.rejects(stranger.sync.sync(), { code: 'encryption_key_wrong' });
  assert.throws(() => stranger.sync.updateConfig({ encryptionKeys: ['x'] }), /encryptionKeys: /);
});

test('nd8 a provider is asked for tokens', async (t) => {
  const user = await devices(t, 'renews');
  let asked = 0;
  let answer = async () => server.token('renews');
  const tokenProvider = () => (asked++, answer());
  const config = { token: undefined, tokenProvider, ...keys };
  const { sync } = await user.device('laptop', { tables: TABLES, config });
  sync.updateConfig({ token: null });
  await sync.sync();
  assert.ok(asked > 0);
  assert.equal((await sync.getLocalDevice()).user, 'renews');
  answer = async () => ({ signedOut: 'the session is over' });
  sync.updateConfig({ tokenProvider: () => answer() });
  await assert.rejects(sync.sync(), { kind: 'authentication', message: /the session is over/ });
  answer = async () => {
    throw new Error('no network there');
  };
  await assert.rejects(sync.sync(), /no network there/);
});

test('nd8 who signs in syncs on all programs of the machine, until they sign out', async (t) => {
  const accounts = new Accounts(server.url);
  assert.equal(await accounts.whoami(), null);
  const config = { url: server.url, login: true, ...keys };
  await assert.rejects(createSyncManager(path('early.db'), config), { code: 'signed_out' });
  const user = await accounts.signUp('ana@example.com', 'three brown foxes');
  assert.equal(user.email, 'ana@example.com');
  await accounts.signOut();
  await assert.rejects(accounts.signIn('ana@example.com', 'wrong'), {
    code: 'wrong_credentials',
    kind: 'authentication',
  });
  await until('a sign-in that is not too fast', () =>
    accounts.signIn('ana@example.com', 'three brown foxes').catch((error) => {
      assert.equal(error.code, 'too_fast');
    }),
  );
  assert.equal((await accounts.whoami()).id, user.id);
  const devices = new Devices(server, path, 'ana');
  t.after(() => devices.close());
  const sync = await devices.manager(path('ana.db'), config);
  await sync.hydrate();
  assert.equal((await sync.getLocalDevice()).user, user.id);
  await accounts.signOut({ everywhere: true });
  assert.equal(await accounts.whoami(), null);
  await assert.rejects(sync.sync(), { kind: 'authentication' });
});
