#!/usr/bin/env node
// One process, one seed, one episode, over stdin and stdout. Anything for people goes to stderr.

import { readFileSync } from 'node:fs';
import { serveStdio } from '@modelcontextprotocol/server/stdio';

import { Episode } from './src/episode.js';
import { serverOf } from './src/mcp.js';
import { BadOption, readOptions } from './src/options.js';

/** @returns {Episode} */
function openEpisode() {
  try {
    const { seed, maxSteps } = readOptions(process.argv.slice(2), process.env);
    return new Episode(seed, maxSteps);
  } catch (error) {
    if (!(error instanceof BadOption)) throw error;
    console.error(`treasure-grid: ${error.message}`);
    process.exit(2);
  }
}

const { version } = JSON.parse(readFileSync(new URL('./package.json', import.meta.url), 'utf8'));
const episode = openEpisode();
// The factory may run twice on one connection (a probe, then the handshake): the episode is made outside it.
serveStdio(() => serverOf(episode, version), {
  onerror: (error) => console.error(`treasure-grid: ${error.message}`),
});
