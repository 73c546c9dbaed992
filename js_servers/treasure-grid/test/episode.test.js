import assert from 'node:assert/strict';
import { test } from 'node:test';

import { makeBoard } from '../src/board.js';
import { Episode, EpisodeEnded, EpisodeFailed } from '../src/episode.js';
import { BadOption, readOptions } from '../src/options.js';
import { wayTo } from './walk.js';

/** @typedef {import('../src/board.js').Direction} Direction */

/**
 * @param {Episode} episode
 * @param {Direction[]} moves
 * @returns {{observation: string, control: object}[]}
 */
function play(episode, moves) {
  return moves.map((direction) => {
    episode.move(direction);
    return { observation: episode.observation, control: episode.control };
  });
}

/**
 * @param {number} step
 * @param {number} totalReward
 */
function ended(step, totalReward) {
  return { terminated: true, truncated: false, step, total_reward: totalReward };
}

/** @returns {Episode} the first seed that has a trap beside a way */
function episodeWithATrapInReach() {
  for (let seed = 0; ; seed += 1) {
    const episode = new Episode(seed);
    if (wayTo(episode.observation, '^').length > 0) return episode;
  }
}

test('the same seed and the same moves give the same episode', () => {
  const moves = wayTo(new Episode(7).observation, 'T');
  assert.deepEqual(play(new Episode(7), moves), play(new Episode(7), moves));
});

test('a thousand seeds give a thousand different boards', () => {
  const boards = new Set(Array.from({ length: 1000 }, (_, seed) => JSON.stringify(makeBoard(seed))));
  assert.equal(boards.size, 1000);
});

test('seeds that differ only above their 32nd bit give different boards', () => {
  assert.notDeepEqual(makeBoard(5), makeBoard(5 + 2 ** 32));
});

test('every seed can be won in the number of steps that its board promises', () => {
  for (const seed of [...Array(500).keys(), 2 ** 31, 2 ** 32 - 1, Number.MAX_SAFE_INTEGER]) {
    const episode = new Episode(seed);
    const moves = wayTo(episode.observation, 'T');
    assert.equal(moves.length, makeBoard(seed).distance, `seed ${seed}`);
    play(episode, moves);
    assert.equal(episode.info.outcome, 'treasure', `seed ${seed}`);
  }
});

test('seed 0 always begins with this map', () => {
  assert.equal(new Episode(0).observation, [
    '#############',
    '#.#..###...##',
    '#^..##...@#.#',
    '#^#.....#.#.#',
    '#..##.#.....#',
    '#.......##.##',
    '###T#.#....^#',
    '#..#..#...#.#',
    '#############',
    '',
    'You look around.',
  ].join('\n'));
});

test('the treasure terminates the episode with a reward of 1', () => {
  const episode = new Episode(3);
  const moves = wayTo(episode.observation, 'T');
  play(episode, moves);
  assert.deepEqual(episode.reward, { reward: 1, step: moves.length });
  assert.deepEqual(episode.status, ended(moves.length, 1));
  assert.match(episode.observation, /You have found the treasure!$/);
});

test('a trap terminates the episode with a reward of -1', () => {
  const episode = episodeWithATrapInReach();
  const moves = wayTo(episode.observation, '^');
  play(episode, moves);
  assert.deepEqual(episode.status, ended(moves.length, -1));
  assert.equal(episode.info.outcome, 'trap');
});

test('the step limit truncates the episode and terminates nothing', () => {
  const episode = new Episode(1, 2);
  play(episode, ['left', 'right']);
  assert.deepEqual(episode.status, { terminated: false, truncated: true, step: 2, total_reward: 0 });
  assert.match(episode.observation, /the search is over\.$/);
});

test('a treasure found with the very last step terminates and does not truncate', () => {
  const moves = wayTo(new Episode(3).observation, 'T');
  const episode = new Episode(3, moves.length);
  play(episode, moves);
  assert.deepEqual(episode.status, ended(moves.length, 1));
});

test('walking against a wall is a step that moves nobody', () => {
  const episode = new Episode(0); // its player stands beside a wall to the right
  const before = episode.info;
  play(episode, ['right']);
  assert.deepEqual(episode.info, before);
  assert.deepEqual(episode.reward, { reward: 0, step: 1 });
  assert.match(episode.observation, /You walk right, against a wall\.$/);
});

test('a move after the end is refused and changes nothing', () => {
  const episode = new Episode(3);
  play(episode, wayTo(episode.observation, 'T'));
  const state = () => [episode.observation, episode.control, episode.status];
  const before = state();
  assert.throws(() => episode.move('up'), EpisodeEnded);
  assert.deepEqual(state(), before);
});

test('a game that fails says so, and takes no step any more', (context) => {
  context.mock.method(console, 'error', () => {});
  const episode = new Episode(0);
  const away = /** @type {any} */ ('sideways');
  assert.throws(() => episode.move(away), EpisodeFailed);
  assert.match(/** @type {any} */ (episode.status).failed, /^step 1: TypeError: /);
  assert.equal(episode.control.failed, /** @type {any} */ (episode.status).failed);
  const before = episode.observation;
  assert.throws(() => episode.move('up'), EpisodeFailed);
  assert.equal(episode.observation, before);
});

test('the initial state stays what it was', () => {
  const episode = new Episode(0);
  const { observation } = episode;
  play(episode, ['up']);
  assert.deepEqual(episode.initialState, { observation, info: { position: [2, 9], outcome: null }, seed: 0 });
});

test('the observation never names the reward', () => {
  const episode = new Episode(3);
  const steps = play(episode, wayTo(episode.observation, 'T'));
  for (const { observation } of steps) assert.doesNotMatch(observation, /\d|reward/);
});

test('the seed comes from the command line before the environment, and 0 is a seed', () => {
  assert.equal(readOptions(['--seed', '0'], { MUXSIM_SEED: '5' }).seed, 0);
  assert.equal(readOptions(['--seed=12'], {}).seed, 12);
  assert.equal(readOptions([], { MUXSIM_SEED: '0' }).seed, 0);
});

test('without a seed a random one is taken', () => {
  const seeds = new Set(Array.from({ length: 8 }, () => readOptions([], {}).seed));
  assert.ok(seeds.size > 1);
});

test('an option that cannot be used is refused with what would be right', () => {
  const rule = 'the seed must be a whole number from 0 to 9007199254740991';
  assert.throws(() => readOptions(['--seed', 'two'], {}), new BadOption(`${rule}, not 'two'`));
  assert.throws(() => readOptions([], { MUXSIM_SEED: '' }), new BadOption(`${rule}, not ''`));
  assert.throws(() => readOptions(['--max-steps', '0'], {}), BadOption);
  assert.throws(() => readOptions(['--sed', '1'], {}), new BadOption("Unknown option '--sed'"));
});
