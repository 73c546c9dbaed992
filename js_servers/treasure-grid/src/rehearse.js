// A game that nobody plays, for muxsim's warm processes: what runs for the first time is slow, so it runs here first.

import { once } from 'node:events';
import { PassThrough } from 'node:stream';
import { serveStdio, StdioServerTransport } from '@modelcontextprotocol/server/stdio';

import { Episode } from './episode.js';
import { serverOf } from './mcp.js';

const ROUNDS = 3; // after as many the next one is hardly faster
const CLIENT = { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'rehearsal', version: '1' } };
const CONTROL = { _meta: { 'muxsim/control': true } };

/** @type {[string, object][]} */
const REQUESTS = [
  ['initialize', CLIENT],
  ['tools/list', {}],
  ['tools/call', { name: 'look', arguments: {}, ...CONTROL }],
  ['tools/call', { name: 'move', arguments: { direction: 'up' }, ...CONTROL }],
  ['resources/read', { uri: 'control://initial_state' }],
];

async function rehearse() {
  const [stdin, stdout] = [new PassThrough(), new PassThrough()];
  const episode = new Episode(0);
  const server = serveStdio(() => serverOf(episode, '0'), { transport: new StdioServerTransport(stdin, stdout) });
  for (const [id, [method, params]] of REQUESTS.entries()) {
    stdin.write(`${JSON.stringify({ jsonrpc: '2.0', id, method, params })}\n`);
    await once(stdout, 'data');
    if (id === 0) stdin.write(`${JSON.stringify({ jsonrpc: '2.0', method: 'notifications/initialized' })}\n`);
  }
  await server.close();
}

for (let round = 0; round < ROUNDS; round += 1) await rehearse();
