// Real children: the server as a client starts it.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Client } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';

import { Episode } from '../src/episode.js';
import { CONTROL_META } from '../src/mcp.js';
import { wayTo } from './walk.js';

/** @typedef {import('@modelcontextprotocol/client').CallToolResult} CallToolResult */

const SERVER = fileURLToPath(new URL('../server.js', import.meta.url));
const ERAS = /** @type {const} */ (['legacy', 'auto']);
const HANDSHAKES = ['2024-11-05', '2025-03-26', '2025-06-18', '2025-11-25'];
const LIMIT = { timeout: 20_000 };

/**
 * @param {import('node:test').TestContext} context closes the client at its end
 * @param {number} seed
 * @param {'legacy' | 'auto'} mode
 */
async function connect(context, seed, mode = 'legacy') {
  const client = new Client({ name: 'test', version: '0' }, { versionNegotiation: { mode } });
  context.after(() => client.close());
  const args = [SERVER, '--seed', String(seed)];
  await client.connect(new StdioClientTransport({ command: process.execPath, args }));
  return client;
}

/**
 * @param {Client} client
 * @param {string} direction
 * @param {Record<string, unknown>} [meta]
 */
function move(client, direction, meta) {
  return client.callTool({ name: 'move', arguments: { direction }, ...(meta && { _meta: meta }) });
}

/** @param {CallToolResult} result */
function textOf(result) {
  assert.equal(result.content.length, 1);
  const [block] = result.content;
  assert.ok(block?.type === 'text');
  return block.text;
}

/**
 * @param {Client} client
 * @param {string} name
 */
async function control(client, name) {
  const { contents } = await client.readResource({ uri: `control://${name}` });
  const [content] = contents;
  assert.ok(content !== undefined && 'text' in content);
  assert.equal(content.mimeType, 'application/json');
  return JSON.parse(content.text);
}

/**
 * @param {string[]} args
 * @returns {{child: import('node:child_process').ChildProcessWithoutNullStreams, ended: Promise<any[]>}}
 */
function start(args) {
  const child = spawn(process.execPath, [SERVER, ...args]);
  return { child, ended: once(child, 'exit') };
}

/**
 * @param {import('node:child_process').ChildProcessWithoutNullStreams} child
 * @param {object[]} messages
 */
function write(child, ...messages) {
  for (const message of messages) child.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`);
}

/** @param {string} protocolVersion */
function handshake(protocolVersion) {
  const params = { protocolVersion, capabilities: {}, clientInfo: { name: 'raw', version: '0' } };
  return [
    { id: 'hello', method: 'initialize', params },
    { method: 'notifications/initialized' },
  ];
}

for (const mode of ERAS) {
  test(`in ${mode} mode a client wins, and reads fresh rewards after each step`, LIMIT, async (context) => {
    const client = await connect(context, 4, mode);
    assert.equal(client.getNegotiatedProtocolVersion(), mode === 'auto' ? '2026-07-28' : '2025-11-25');
    assert.deepEqual((await client.listTools()).tools.map(({ name }) => name), ['look', 'move']);
    const initial = await control(client, 'initial_state');
    assert.deepEqual(initial, { ...new Episode(4).initialState });
    assert.deepEqual(await control(client, 'reward'), { reward: 0, step: 0 });

    const moves = wayTo(initial.observation, 'T');
    for (const [index, direction] of moves.entries()) {
      await move(client, direction);
      const last = index === moves.length - 1;
      assert.deepEqual(await control(client, 'reward'), { reward: last ? 1 : 0, step: index + 1 });
    }
    assert.deepEqual(await control(client, 'status'), {
      terminated: true, truncated: false, step: moves.length, total_reward: 1,
    });
    assert.equal((await control(client, 'info')).outcome, 'treasure');
  });

  test(`in ${mode} mode the control plane rides on a result only when asked for`, LIMIT, async (context) => {
    const client = await connect(context, 0, mode);
    const asked = await move(client, 'up', { [CONTROL_META]: true });
    assert.deepEqual(asked._meta?.[CONTROL_META], {
      reward: 0, terminated: false, truncated: false, step: 1, info: { position: [1, 9], outcome: null },
    });
    for (const meta of [undefined, {}, { [CONTROL_META]: false }, { [CONTROL_META]: 'true' }]) {
      assert.equal((await move(client, 'down', meta))._meta?.[CONTROL_META], undefined);
    }
  });
}

test('two processes with the same seed and the same moves tell the same story', LIMIT, async (context) => {
  const [one, other] = await Promise.all([connect(context, 11), connect(context, 11, 'auto')]);
  const moves = wayTo(new Episode(11).observation, 'T');
  const stories = [];
  for (const client of [one, other]) {
    const story = [];
    for (const direction of moves) story.push(textOf(await move(client, direction)));
    stories.push(story);
  }
  assert.deepEqual(stories[0], stories[1]);
});

test('looking around takes no step', LIMIT, async (context) => {
  const client = await connect(context, 2);
  assert.equal(textOf(await client.callTool({ name: 'look' })), new Episode(2).observation);
  assert.deepEqual(await control(client, 'reward'), { reward: 0, step: 0 });
});

test('the rewards of all calls add up to the return, looking around included', LIMIT, async (context) => {
  const client = await connect(context, 4);
  const look = () => client.callTool({ name: 'look', _meta: { [CONTROL_META]: true } });
  const results = [];
  for (const direction of wayTo(new Episode(4).observation, 'T')) {
    results.push(await move(client, direction, { [CONTROL_META]: true }), await look());
  }
  const rewards = results.map(({ _meta }) => /** @type {any} */ (_meta?.[CONTROL_META]).reward);
  assert.equal(rewards.reduce((sum, reward) => sum + reward), (await control(client, 'status')).total_reward);
});

test('a move after the end is a tool error and changes nothing', LIMIT, async (context) => {
  const client = await connect(context, 4);
  for (const direction of wayTo(new Episode(4).observation, 'T')) await move(client, direction);
  const before = await control(client, 'status');
  const refused = await move(client, 'up', { [CONTROL_META]: true });
  assert.equal(refused.isError, true);
  assert.equal(/** @type {any} */ (refused._meta?.[CONTROL_META]).reward, null);
  assert.match(textOf(refused), /^the episode has ended/);
  assert.deepEqual(await control(client, 'status'), before);
});

test('a direction that is none is a tool error and takes no step', LIMIT, async (context) => {
  const client = await connect(context, 0);
  assert.equal((await move(client, 'sideways')).isError, true);
  assert.deepEqual(await control(client, 'reward'), { reward: 0, step: 0 });
});

for (const version of HANDSHAKES) {
  test(`a client of ${version} is served its revision, and every line is a message`, LIMIT, async () => {
    const { child, ended } = start(['--seed', '0']);
    const step = { name: 'move', arguments: { direction: 'up' } };
    write(child, ...handshake(version), { id: 'step', method: 'tools/call', params: step });
    const answers = new Map();
    for await (const line of createInterface({ input: child.stdout })) {
      const message = JSON.parse(line);
      answers.set(message.id, message.result);
      if (answers.size === 2) child.stdin.end();
    }
    assert.equal((await ended)[0], 0);
    assert.equal(answers.get('hello').protocolVersion, version);
    assert.match(answers.get('step').content[0].text, /You walk up\.$/);
  });
}

test('the server exits with status 0 when its stdin ends', LIMIT, async () => {
  const { child, ended } = start([]);
  child.stdin.end();
  assert.deepEqual(await ended, [0, null]);
});

test('a bad seed ends the start with status 2 and one line', LIMIT, async () => {
  const { child, ended } = start(['--seed', '1.5']);
  const said = await text(child.stderr);
  assert.deepEqual(await ended, [2, null]);
  assert.match(said, /^treasure-grid: the seed must be a whole number from 0 to \d+, not '1\.5'\n$/);
});
