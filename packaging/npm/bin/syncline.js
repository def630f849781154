#!/usr/bin/env node
// Runs the syncline program of this platform, which npm put beside this package.
'use strict';
const { spawn } = require('node:child_process');

const platform = `${process.platform}-${process.arch}`;
let program;
try {
  program = require.resolve(`@syncline/cli-${platform}/syncline`);
} catch {
  console.error(
    `syncline: this installation has no program for ${platform}. If there is a package ` +
      `@syncline/cli-${platform}, install without --omit=optional; else build it from source ` +
      'with cargo.',
  );
  process.exit(1);
}

const child = spawn(program, process.argv.slice(2), { stdio: 'inherit' });
child.on('error', (error) => {
  console.error(`syncline: ${program} cannot be started: ${error.message}`);
  process.exit(1);
});
// A terminal sends Ctrl-C to both; twice would mean to the program: at once.
process.on('SIGINT', () => {
  if (!process.stdin.isTTY) child.kill('SIGINT');
});
for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
child.on('exit', (code, signal) => {
  if (signal) {
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  } else {
    process.exit(code);
  }
});
