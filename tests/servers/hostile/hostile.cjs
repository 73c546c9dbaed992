// As hostile.py, for a node that waits: it is confined before it has loaded anything.
'use strict';

const fs = require('node:fs');
const net = require('node:net');
const path = require('node:path');
const dgram = require('node:dgram');
const { spawnSync } = require('node:child_process');

const targets = JSON.parse(process.env.TARGETS);
const workspace = process.env.MUXSIM_WORKSPACE;

/** What comes of a call that throws what is wrong. */
function now(attempt) {
  try {
    attempt();
    return 'done';
  } catch (error) {
    return error.code ?? String(error);
  }
}

/** What comes of what tells it by an event. */
function soon(made, event) {
  return new Promise((resolve) => {
    made.once('error', (error) => resolve(error.code));
    made.once(event, () => resolve('done'));
  });
}

async function main() {
  const udp = dgram.createSocket('udp4');
  const told = {
    'read ssh': now(() => fs.readFileSync(targets.ssh)),
    'read tokens': now(() => fs.readFileSync(targets.tokens)),
    'read another workspace': now(() => fs.readdirSync(targets.workspace)),
    'tcp': await soon(net.connect(targets.tcp[1], targets.tcp[0]), 'connect'),
    'unix path': await soon(net.connect(targets.unix), 'connect'),
    'udp': await new Promise((resolve) => {
      udp.once('error', (error) => resolve(error.code));
      udp.send('x', targets.udp[1], targets.udp[0], (error) => resolve(error?.code ?? 'done'));
    }),
    'kill': now(() => process.kill(targets.pid, 'SIGWINCH')),
    'proc environ': now(() => fs.readFileSync(`/proc/${targets.pid}/environ`)),
    'write beside its code': now(() => fs.writeFileSync(path.join(__dirname, 'left'), 'x')),
    'write to tmp': now(() => fs.writeFileSync('/tmp/muxsim-hostile', 'x')),
    'write home': now(() => fs.writeFileSync(path.join(targets.home, 'left'), 'x')),
    'own workspace': now(() => fs.writeFileSync(path.join(workspace, 'a'), 'x')),
    'own temporary': now(() => fs.mkdtempSync(path.join(require('node:os').tmpdir(), 'x-'))),
    'own child': now(() => { if (spawnSync(process.execPath, ['-e', '0']).status !== 0) throw new Error('failed'); }),
    'named writable': now(() => fs.writeFileSync(targets.writable, 'x')),
  };
  console.log(JSON.stringify({ jsonrpc: '2.0', method: 'told', params: { told } }));
}

main();
process.stdin.resume();
