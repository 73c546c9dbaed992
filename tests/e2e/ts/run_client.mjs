// Starts client.mjs and server-everything as the children that they are in the end-to-end tests.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

export const SCENARIOS = ['everything', 'sampling', 'progress', 'cancel', 'listen'];

const path = (name) => fileURLToPath(new URL(name, import.meta.url));
const EVERYTHING = path('node_modules/@modelcontextprotocol/server-everything/dist/index.js');

/** The command of server-everything on stdio. */
export const EVERYTHING_STDIO = ['--transport', 'stdio', '--command', JSON.stringify(['node', EVERYTHING])];

/** @returns {Promise<any>} the one line that client.mjs prints */
export async function runClient(...args) {
  const child = spawn(process.execPath, [path('client.mjs'), ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const [output, noise] = await Promise.all([text(child.stdout), text(child.stderr)]);
  if (output === '') throw new Error(`client.mjs printed nothing: ${noise}`);
  return JSON.parse(output);
}

/**
 * @param {'streamableHttp' | 'sse'} mode
 * @returns {Promise<{url: string, stop: () => Promise<void>}>} server-everything serving HTTP by itself
 */
export async function serveEverything(mode) {
  const args = ['--import', new URL('loopback_only.mjs', import.meta.url).href, EVERYTHING, mode];
  const env = { ...process.env, PORT: '0' };
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'], env });
  const ended = once(child, 'exit');
  const stop = async () => {
    child.kill('SIGKILL'); // with a stream open it does not follow a gentler word
    await ended;
  };
  for await (const line of createInterface({ input: child.stderr })) {
    const base = line.match(/^listening on (\S+)$/)?.[1];
    if (base === undefined) continue;
    child.stderr.resume(); // a pipe that nobody reads would stop it
    return { url: base + (mode === 'sse' ? '/sse' : '/mcp'), stop };
  }
  throw new Error(`server-everything ${mode} did not start`);
}

/** @returns {Promise<any>} what a scenario gives with no proxy between */
export async function expected(scenario) {
  return JSON.parse(await readFile(new URL(`expected/${scenario}.json`, import.meta.url), 'utf8'));
}
