// The board of one episode, made from its seed alone.

import { uniformInt } from 'pure-rand/distribution/uniformInt';
import { xoroshiro128plusFromState } from 'pure-rand/generator/xoroshiro128plus';

/** @typedef {import('pure-rand/types/RandomGenerator').RandomGenerator} RandomGenerator */
/** @typedef {{row: number, column: number}} Cell */
/** @typedef {'up' | 'down' | 'left' | 'right'} Direction */
/**
 * `distance` counts the moves of the shortest way from start to treasure that is free of traps.
 * @typedef {{rows: string[], start: Cell, treasure: Cell, distance: number}} Board
 */

export const WALL = '#';
export const FLOOR = '.';
export const TRAP = '^';
export const TREASURE = 'T';

/** Tiles by the number that stands for them in what a trainer reads, the player's last. */
export const TILES = [FLOOR, WALL, TRAP, TREASURE, '@'];
export const HEIGHT = 9;
export const WIDTH = 13;

/** @type {Record<Direction, Cell>} */
export const OFFSETS = {
  up: { row: -1, column: 0 },
  down: { row: 1, column: 0 },
  left: { row: 0, column: -1 },
  right: { row: 0, column: 1 },
};

const WALL_PERCENT = 25; // more, and most sketches fall apart into islands
const TRAP_PERCENT = 8;
const LEAST_DISTANCE = 8; // nearer, and a random walk would do

/**
 * The board that belongs to a seed: a treasure can always be reached without stepping on a trap.
 * @param {number} seed an integer from 0 to 2**53 - 1
 * @returns {Board}
 */
export function makeBoard(seed) {
  const random = randomOf(seed);
  for (;;) {
    const board = placeTreasure(sketch(random), random);
    if (board !== undefined) return board;
  }
}

/**
 * @param {Cell} cell
 * @param {Direction} direction
 * @returns {Cell}
 */
export function neighbour(cell, direction) {
  const offset = OFFSETS[direction];
  return { row: cell.row + offset.row, column: cell.column + offset.column };
}

/**
 * @param {string[]} rows
 * @param {Cell} cell a cell on the board
 * @returns {string}
 */
export function tileAt(rows, cell) {
  return /** @type {string} */ (rows[cell.row]?.[cell.column]);
}

/**
 * @param {string[]} rows
 * @param {Cell} cell
 * @param {string} tile one character
 * @returns {string[]}
 */
export function withTile(rows, cell, tile) {
  return rows.map((row, index) =>
    index === cell.row ? row.slice(0, cell.column) + tile + row.slice(cell.column + 1) : row);
}

/**
 * @param {number} seed
 * @returns {RandomGenerator}
 */
function randomOf(seed) {
  const low = seed | 0;
  const high = Math.floor(seed / 2 ** 32) | 0;
  // The generator's own seeding takes 32 bits; as a state, seeds above them are told apart too. The two
  // inverted words keep the state of seed 0 from being all zeros, from which the generator would never move.
  return xoroshiro128plusFromState([high, ~low, low, ~high]);
}

/**
 * @param {RandomGenerator} random
 * @returns {string[]} walls all around, and walls, traps and floor inside
 */
function sketch(random) {
  const tile = () => {
    const roll = uniformInt(random, 1, 100);
    if (roll <= WALL_PERCENT) return WALL;
    return roll <= WALL_PERCENT + TRAP_PERCENT ? TRAP : FLOOR;
  };
  const line = () => WALL + Array.from({ length: WIDTH - 2 }, tile).join('') + WALL;
  const border = WALL.repeat(WIDTH);
  return [border, ...Array.from({ length: HEIGHT - 2 }, line), border];
}

/**
 * @param {string[]} rows
 * @param {RandomGenerator} random
 * @returns {Board | undefined} nothing when the sketch has no place that is far enough from the start
 */
function placeTreasure(rows, random) {
  const floor = rows.flatMap((line, row) =>
    [...line].flatMap((tile, column) => (tile === FLOOR ? [{ row, column }] : [])));
  const start = pick(floor, random);
  if (start === undefined) return undefined;
  const found = pick(distancesFrom(rows, start).filter(({ distance }) => distance >= LEAST_DISTANCE), random);
  if (found === undefined) return undefined;
  const { cell: treasure, distance } = found;
  return { rows: withTile(rows, treasure, TREASURE), start, treasure, distance };
}

/**
 * @template T
 * @param {T[]} items
 * @param {RandomGenerator} random
 * @returns {T | undefined}
 */
function pick(items, random) {
  return items.length === 0 ? undefined : items[uniformInt(random, 0, items.length - 1)];
}

/**
 * Every floor cell that can be reached over floor, nearest first.
 * @param {string[]} rows
 * @param {Cell} start
 * @returns {{cell: Cell, distance: number}[]}
 */
function distancesFrom(rows, start) {
  const reached = [{ cell: start, distance: 0 }];
  const seen = new Set([`${start.row},${start.column}`]);
  for (const { cell, distance } of reached) { // grows while it is walked: a breadth-first search
    for (const direction of /** @type {Direction[]} */ (Object.keys(OFFSETS))) {
      const next = neighbour(cell, direction);
      const key = `${next.row},${next.column}`;
      if (seen.has(key) || tileAt(rows, next) !== FLOOR) continue;
      seen.add(key);
      reached.push({ cell: next, distance: distance + 1 });
    }
  }
  return reached;
}
