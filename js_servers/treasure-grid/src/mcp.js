// What MCP clients see of an episode: two tools (the data plane) and five resources (the control plane).

import { McpServer } from '@modelcontextprotocol/server';
import { z } from 'zod';

import { EpisodeEnded, EpisodeFailed, PLAYER } from './episode.js';
import { HEIGHT, TILES, TRAP, TREASURE, WALL, WIDTH } from './board.js';

/** @typedef {import('./episode.js').Episode} Episode */
/** @typedef {import('@modelcontextprotocol/server').ServerContext} ServerContext */
/** @typedef {import('@modelcontextprotocol/server').CallToolResult} CallToolResult */

/**
 * A request asks with this `_meta` key for the control plane, and the result answers under it: with `true`, or with
 * `{ exact: true }` for the observation as numbers too.
 */
export const CONTROL_META = 'muxsim/control';

/** Rewards of calls that are no steps. */
const NO_STEP = 0;
const FAILED = null;

/** Gymnasium's space of the observation as numbers. Of actions there is one for each call of a tool. */
const SPACES = {
  action: null,
  observation: { space: 'Box', shape: [HEIGHT, WIDTH], dtype: '|u1', low: 0, high: TILES.length - 1 },
  step: null,
};

const INSTRUCTIONS = `Find the treasure. On the map ${PLAYER} is you, ${TREASURE} the treasure, \
${TRAP} a trap and ${WALL} a wall; rows run from north (up) to south (down).`;

/**
 * A server of its own for each connection that is opened; all of them play the one episode.
 * @param {Episode} episode
 * @param {string} version of the package
 * @returns {McpServer}
 */
export function serverOf(episode, version) {
  const server = new McpServer({ name: 'treasure-grid', version }, { instructions: INSTRUCTIONS });
  addTools(server, episode);
  addControlPlane(server, episode);
  return server;
}

/**
 * @param {McpServer} server
 * @param {Episode} episode
 */
function addTools(server, episode) {
  server.registerTool('look', {
    title: 'Look around',
    description: `Show the map without taking a step. ${INSTRUCTIONS}`,
    annotations: { readOnlyHint: true, openWorldHint: false },
  }, (context) => answer(episode, context, episode.observation, NO_STEP));

  server.registerTool('move', {
    title: 'Move',
    description: `Take one step and show the map. ${INSTRUCTIONS}`,
    inputSchema: z.object({ direction: z.enum(['up', 'down', 'left', 'right']).describe('where to step') }),
    annotations: { readOnlyHint: false, destructiveHint: false, idempotentHint: false, openWorldHint: false },
  }, ({ direction }, context) => {
    try {
      episode.move(direction);
    } catch (error) {
      if (!(error instanceof EpisodeEnded || error instanceof EpisodeFailed)) throw error;
      return { ...answer(episode, context, error.message, FAILED), isError: true };
    }
    return answer(episode, context, episode.observation, episode.reward.reward);
  });
}

/**
 * @param {Episode} episode
 * @param {ServerContext} context
 * @param {string} text
 * @param {number | null} reward of this call: the rewards of all calls add up to the return
 * @returns {CallToolResult} with the control plane only for a request that asks for it
 */
function answer(episode, context, text, reward) {
  /** @type {CallToolResult} */
  const result = { content: [{ type: 'text', text }] };
  const wish = context.mcpReq._meta?.[CONTROL_META];
  const isAsked = wish === true || (typeof wish === 'object' && wish !== null);
  const exact = isExact(context) ? exactly(episode) : {};
  if (isAsked) result._meta = { [CONTROL_META]: { reward, ...episode.control, ...exact } };
  return result;
}

/** @param {ServerContext} context */
function isExact(context) {
  const wish = /** @type {{ exact?: unknown } | undefined} */ (context.mcpReq._meta?.[CONTROL_META]);
  return wish?.exact === true;
}

/** @param {Episode} episode */
function exactly(episode) {
  return { exact: { observation: episode.tiles, info: episode.info } };
}

/**
 * @param {McpServer} server
 * @param {Episode} episode
 */
function addControlPlane(server, episode) {
  /** @type {[string, string, (context: ServerContext) => object][]} */
  const resources = [
    ['reward', 'Reward of the last step', () => episode.reward],
    ['status', 'Whether the episode has ended, and its return so far', () => episode.status],
    ['info', 'Info of the last step', () => episode.info],
    ['initial_state', 'First observation, first info and seed', (context) => ({
      ...episode.initialState,
      // Of the start nothing is kept but what anybody reads: later it would be another board.
      ...(isExact(context) && episode.status.step === 0 ? exactly(episode) : {}),
    })],
    ['spaces', "Gymnasium's space of the observation as numbers", () => SPACES],
  ];
  for (const [name, description, read] of resources) {
    const uri = `control://${name}`;
    const mimeType = 'application/json';
    server.registerResource(name, uri, { description, mimeType }, (_uri, context) => ({
      contents: [{ uri, mimeType, text: JSON.stringify(read(context)) }],
    }));
  }
}
