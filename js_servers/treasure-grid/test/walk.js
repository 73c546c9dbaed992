// A policy for tests: it reads the map from the observation, as any client would, and walks the shortest way.

/** @typedef {import('../src/board.js').Direction} Direction */

/** @type {[Direction, number, number][]} */
const STEPS = [['up', -1, 0], ['down', 1, 0], ['left', 0, -1], ['right', 0, 1]];

/**
 * @param {string} observation
 * @param {string} goal the tile to walk to: 'T' or '^'
 * @param {string} [ground] the tiles that may be crossed on the way
 * @returns {Direction[]} the moves; empty when there is no way
 */
export function wayTo(observation, goal, ground = '.') {
  const rows = observation.slice(0, observation.indexOf('\n\n')).split('\n');
  const row = rows.findIndex((line) => line.includes('@'));
  const start = { row, column: rows[row]?.indexOf('@') ?? -1, moves: /** @type {Direction[]} */ ([]) };
  const reached = [start];
  const seen = new Set([`${start.row},${start.column}`]);
  for (const here of reached) {
    for (const [direction, down, right] of STEPS) {
      const next = { row: here.row + down, column: here.column + right, moves: [...here.moves, direction] };
      const tile = rows[next.row]?.[next.column] ?? '#';
      if (tile === goal) return next.moves;
      if (seen.has(`${next.row},${next.column}`) || !ground.includes(tile)) continue;
      seen.add(`${next.row},${next.column}`);
      reached.push(next);
    }
  }
  return [];
}
