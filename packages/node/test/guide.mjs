// Takes the TypeScript of the guide out of it, word for word, and makes modules of it: each block
// is the body of a function whose parameters are the names that it takes from the blocks before.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { register } from 'node:module';
import { fileURLToPath } from 'node:url';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const guide = readFileSync(here('progressive-cloud-sync.md'), 'utf8');

/** The blocks in a language, each with the heading above it. */
export function blocks(language) {
  const found = [];
  let heading = '';
  let code;
  for (const line of guide.split('\n')) {
    if (code === undefined) {
      if (line.startsWith('#')) heading = line.replace(/^#+ /, '');
      if (line.startsWith('```')) code = line === `\`\`\`${language}` ? [] : null;
    } else if (line === '```') {
      if (code) found.push({ heading, code: code.join('\n') });
      code = undefined;
    } else {
      code?.push(line);
    }
  }
  return found;
}

/** Types of the names that blocks take. */
const TYPES = {
  authToken: 'string',
  console: 'Console',
  deviceId: 'string',
  provider: "import('./sync').SyncProvider",
  retryQueue: "import('./sync').RetryQueue",
  syncManager: "import('./sync').SyncManager",
  knex: "import('knex').Knex",
  setTimeout: "typeof globalThis.setTimeout",
};

/** Declared in a block, and so given back by it. */
const DECLARED = /^(?:const|let|async function|function) (\w+)/gm;

/** The module of a block. Imports stay where they are; the rest is a function's body. */
function moduleOf({ code }) {
  const lines = code.split('\n');
  const imports = lines.filter((line) => line.startsWith('import '));
  const body = lines.filter((line) => !line.startsWith('import ')).join('\n');
  const declared = [...body.matchAll(DECLARED)].map(([, name]) => name);
  const isUsed = (name) => new RegExp(`\\b${name}\\b`).test(body);
  const imported = new Set(imports.join(' ').match(/\w+/g));
  if (isUsed('isSyncAvailable') && !imported.has('isSyncAvailable')) {
    imports.push("import { isSyncAvailable } from './sync';");
  }
  const taken = Object.keys(TYPES).filter(
    (name) => isUsed(name) && !declared.includes(name) && !imported.has(name),
  );
  const parameter = `{ ${taken.join(', ')} }: { ${taken.map((n) => `${n}: ${TYPES[n]}`).join('; ')} }`;
  // Alternatives that each declare the same name are each a block of their own.
  const isRepeated = new Set(declared).size < declared.length;
  const parts = isRepeated ? body.trim().split('\n\n') : [body];
  const functions = parts.map((part) => {
    const names = [...part.matchAll(DECLARED)].map(([, name]) => name);
    return `async (${taken.length ? parameter : ''}) => {\n${part}\nreturn { ${names.join(', ')} };\n}`;
  });
  return `${imports.join('\n')}\nexport default [\n${functions.join(',\n')}\n];\n`;
}

/**
 * Compiles every block against the types of the package, and gives what runs one: with the names
 * that it takes, as often as it shows alternatives.
 */
export async function compile() {
  const build = here('../build/guide');
  rmSync(build, { recursive: true, force: true });
  mkdirSync(`${build}/src/app`, { recursive: true });
  mkdirSync(`${build}/src/database`, { recursive: true });
  const write = (name, text) => writeFileSync(`${build}/src/${name}`, text);
  write('app/sync.ts', "export * from '@syncline/node';\n");
  write(
    'database/connection.ts',
    `import type { Knex } from 'knex';\n` +
      'export let knex: Knex;\nexport const connect = (to: Knex) => void (knex = to);\n',
  );
  const all = blocks('typescript');
  all.forEach((block, i) => write(`app/block${i}.ts`, moduleOf(block)));
  const config = {
    compilerOptions: {
      target: 'ES2022',
      lib: ['ES2023', 'ESNext.Disposable'],
      module: 'ESNext',
      moduleResolution: 'Bundler',
      types: ['node'],
      rootDir: 'src',
      outDir: 'js',
      // As the guide is written: an error in a catch and a parameter have no types there.
      strict: false,
      noEmitOnError: true,
    },
    include: ['src'],
  };
  writeFileSync(`${build}/tsconfig.json`, JSON.stringify(config));
  try {
    execFileSync(here('../node_modules/.bin/tsc'), ['-p', build], { encoding: 'utf8' });
  } catch (error) {
    throw new Error(`the guide does not compile:\n${error.stdout}`);
  }
  // Node wants the endings of files that a bundler leaves out.
  const hook = `export const resolve = (name, context, next) =>
    next(/^\\.\\.?\\/(sync|database\\/connection)$/.test(name) ? name + '.js' : name, context);`;
  register(`data:text/javascript,${encodeURIComponent(hook)}`);
  const { connect } = await import(`${build}/js/database/connection.js`);
  return {
    connect,
    /** Runs the only block under a heading; `at` where there are several. */
    async run(heading, taken = {}, at = 0) {
      const found = all.flatMap((block, i) => (block.heading === heading ? [i] : []));
      if (found[at] === undefined) throw new Error(`the guide has no block ${heading} ${at}`);
      ran.add(found[at]);
      const { default: functions } = await import(`${build}/js/app/block${found[at]}.js`);
      const results = [];
      for (const block of functions) results.push(await block(taken));
      return results.length === 1 ? results[0] : results;
    },
    /** Headings of blocks that were not run. */
    forgotten: () => all.filter((_, i) => !ran.has(i)).map((block) => block.heading),
  };
}

const ran = new Set();

/** A console that keeps what it is told, each call as its arguments. */
export function listener() {
  const said = [];
  const keep = (...words) => void said.push(words);
  return { console: { log: keep, error: keep }, said, lines: () => said.map((words) => words.join(' ')) };
}
