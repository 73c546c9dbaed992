#!/usr/bin/env node
'use strict';

const path = require('node:path');
const { colour, loadedBy } = require('early');
const late = require('./late.cjs');

const told = {
  argv: process.argv,
  argv0: process.argv0,
  execArgv: process.execArgv,
  env: Object.fromEntries(Object.entries(process.env).sort()),
  cwd: process.cwd(),
  umask: process.umask(),
  filename: path.basename(__filename),
  isMain: [require.main === module, module.id, module.parent ?? null, module.loaded],
  mainModule: process.mainModule === module,
  required: Object.keys(require.cache),
  colour,
  loadedBy,
  late,
};
console.log(JSON.stringify({ jsonrpc: '2.0', method: 'told', params: told }));
console.error('a last word');
process.stdin.on('end', () => process.exit(0)).resume();
