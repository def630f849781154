// What the package brings along (docs/security.md, C5).
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

test('nothing is installed with the package, and nothing runs when it is', () => {
  const text = readFileSync(new URL('../package.json', import.meta.url), 'utf8');
  const { scripts, ...declared } = JSON.parse(text);
  for (const kind of ['dependencies', 'bundleDependencies', 'bundledDependencies', 'peerDependencies']) {
    assert.deepEqual(declared[kind] ?? {}, {}, kind);
  }
  // Those that belong to it are our own, one for each machine.
  const own = Object.keys(declared.optionalDependencies ?? {});
  assert.deepEqual(own.filter((name) => !name.startsWith('@syncline/')), []);
  const hooks = ['preinstall', 'install', 'postinstall', 'prepare'];
  assert.deepEqual(Object.keys(scripts).filter((name) => hooks.includes(name)), []);
});
