// The JavaScript of README.md and docs/node.md runs as it stands, and says what `// →` promises.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Server, scratch } from './support.mjs';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const path = scratch();
const server = await new Server(path).start();
test.after(() => server.stop());

/** Runs the blocks of a text as one module in an empty folder, and gives what it printed. */
async function follow(name, text, { interrupt } = {}) {
  const blocks = [...text.matchAll(/^```js\n(.*?)^```/gms)].map(([, code]) => code);
  assert.ok(blocks.length > 0, `${name} shows JavaScript`);
  const code = blocks.join('');
  // A module finds packages from where it lies.
  mkdirSync(here('../build/docs'), { recursive: true });
  const module = here(`../build/docs/${name}.mjs`);
  writeFileSync(module, code);
  mkdirSync(path(name));
  const child = spawn(process.execPath, [module], {
    cwd: path(name),
    env: { ...process.env, SYNCLINE_URL: server.url, SYNCLINE_TOKEN: server.token(name) },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let said = '';
  child.stdout.setEncoding('utf8').on('data', (more) => {
    said += more;
    if (interrupt && said.includes(interrupt)) child.kill('SIGINT');
  });
  const [exit, signal] = await once(child, 'close');
  assert.deepEqual([exit, signal], interrupt ? [null, 'SIGINT'] : [0, null], said);
  let rest = said;
  for (const [, promise] of code.matchAll(/\/\/ → (.*)$/gm)) {
    const at = rest.indexOf(promise);
    assert.notEqual(at, -1, `${JSON.stringify(promise)} is not said in ${said}`);
    rest = rest.slice(at + promise.length);
  }
  return said;
}

test('docs/node.md says what happens', async () => {
  await follow('guide', readFileSync(here('../../../docs/node.md'), 'utf8'));
});

test('the program of README.md runs as it stands', async () => {
  const readme = readFileSync(here('../../../README.md'), 'utf8');
  const [, section] = readme.split('\n## Node\n');
  await follow('readme', section.split('\n## ')[0], { interrupt: 'record' });
});
