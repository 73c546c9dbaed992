// What a script can know of itself and its session, said as one message; then it waits for the end of stdin.

import { createRequire } from 'node:module';
import { umask } from 'node:process';
import { colour, loadedBy } from 'early';
import late from './late.js';

const require = createRequire(import.meta.url);
const told = {
  argv: process.argv,
  argv0: process.argv0,
  execArgv: process.execArgv,
  env: Object.fromEntries(Object.entries(process.env).sort()),
  cwd: process.cwd(),
  umask: umask(),
  url: import.meta.url,
  isMain: import.meta.main ?? null,
  mainModule: process.mainModule?.filename ?? null,
  required: Object.keys(require.cache),
  descriptors: (await import('node:fs')).readdirSync('/proc/self/fd').filter((name) => Number(name) < 3),
  colour,
  loadedBy,
  late,
  warnings: process.listenerCount('warning'),
};
console.log(JSON.stringify({ jsonrpc: '2.0', method: 'told', params: told }));
console.error('a last word');
process.stdin.on('end', () => process.exit(0)).resume();
