// The rules: one episode on one board. Knows no MCP and no input or output.

import { makeBoard, neighbour, tileAt, TILES, TRAP, TREASURE, WALL, withTile } from './board.js';

/** @typedef {import('./board.js').Direction} Direction */
/** @typedef {{position: [number, number], outcome: 'treasure' | 'trap' | null}} Info */
/** @typedef {{terminated: boolean, truncated: boolean, step: number, info: Info, failed?: string}} Control */

export const DEFAULT_MAX_STEPS = 100; // the farthest treasure of the first 100,000 seeds is 30 steps away
export const PLAYER = '@';

const TREASURE_REWARD = 1;
const TRAP_REWARD = -1;

/** A step was asked for after the end. */
export class EpisodeEnded extends Error {
  constructor() {
    super('the episode has ended: no further step is possible; start a new session to play again');
    this.name = 'EpisodeEnded';
  }
}

/** The game itself has failed, by no doing of the player's; nothing of it counts any more. */
export class EpisodeFailed extends Error {
  constructor() {
    super('the game has failed: no further step is possible');
    this.name = 'EpisodeFailed';
  }
}

export class Episode {
  /** @type {string[]} */ #rows;
  /** @type {import('./board.js').Cell} */ #player;
  #said = 'You look around.';
  #reward = 0;
  #totalReward = 0;
  #step = 0;
  #maxSteps;
  /** @type {Info['outcome']} */ #outcome = null;
  /** @type {string | undefined} */ #failed;

  /**
   * @param {number} seed an integer from 0 to 2**53 - 1
   * @param {number} [maxSteps] the episode is truncated after so many steps
   */
  constructor(seed, maxSteps = DEFAULT_MAX_STEPS) {
    const board = makeBoard(seed);
    this.seed = seed;
    this.#rows = board.rows;
    this.#player = board.start;
    this.#maxSteps = maxSteps;
    this.initialState = Object.freeze({ observation: this.observation, info: this.info, seed });
  }

  /** What the agent sees. @returns {string} the map, a blank line, and one sentence */
  get observation() {
    return `${withTile(this.#rows, this.#player, PLAYER).join('\n')}\n\n${this.#said}`;
  }

  /** The board as numbers, a row each: which tile, by its place among TILES. @returns {number[][]} */
  get tiles() {
    return withTile(this.#rows, this.#player, PLAYER).map((row) => [...row].map((tile) => TILES.indexOf(tile)));
  }

  /** @returns {Info} */
  get info() {
    return { position: [this.#player.row, this.#player.column], outcome: this.#outcome };
  }

  get reward() {
    return { reward: this.#reward, step: this.#step };
  }

  get status() {
    return {
      terminated: this.#outcome !== null,
      truncated: this.#outcome === null && this.#step >= this.#maxSteps,
      step: this.#step,
      total_reward: this.#totalReward,
      ...this.#failure,
    };
  }

  get #failure() {
    return this.#failed === undefined ? {} : { failed: this.#failed };
  }

  /** What a tool's result tells the trainer, but for the reward. @returns {Control} */
  get control() {
    const { terminated, truncated, step } = this.status;
    return { terminated, truncated, step, info: this.info, ...this.#failure };
  }

  /**
   * One step. Walking against a wall is a step too.
   * @param {Direction} direction
   * @throws {EpisodeEnded}
   * @throws {EpisodeFailed} and every later step too
   */
  move(direction) {
    if (this.#failed !== undefined) throw new EpisodeFailed();
    const { terminated, truncated } = this.status;
    if (terminated || truncated) throw new EpisodeEnded();
    try {
      this.#take(direction);
    } catch (error) {
      // A player's mistake is refused before: what is thrown here is a mistake of the game's.
      this.#failed = `step ${this.#step}: ${error}`;
      console.error(error);
      throw new EpisodeFailed();
    }
  }

  /** @param {Direction} direction */
  #take(direction) {
    this.#step += 1;
    this.#reward = 0;
    this.#enter(neighbour(this.#player, direction), direction);
    this.#totalReward += this.#reward;
    if (this.status.truncated) this.#said += ' Night falls, and the search is over.';
  }

  /**
   * @param {import('./board.js').Cell} cell
   * @param {Direction} direction
   */
  #enter(cell, direction) {
    const tile = tileAt(this.#rows, cell);
    if (tile === WALL) {
      this.#said = `You walk ${direction}, against a wall.`;
      return;
    }
    this.#player = cell;
    this.#said = `You walk ${direction}.`;
    if (tile === TREASURE) this.#end('treasure', TREASURE_REWARD, ' You have found the treasure!');
    if (tile === TRAP) this.#end('trap', TRAP_REWARD, ' You fall into a trap.');
  }

  /**
   * @param {'treasure' | 'trap'} outcome
   * @param {number} reward
   * @param {string} sentence
   */
  #end(outcome, reward, sentence) {
    this.#outcome = outcome;
    this.#reward = reward;
    this.#said += sentence;
  }
}
