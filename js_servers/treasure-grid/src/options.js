// The command line.

import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';

import { DEFAULT_MAX_STEPS } from './episode.js';

const RANDOM_SEEDS = 2 ** 32; // a short seed is easier to type in again

/** The command line or the environment says something that cannot be used. */
export class BadOption extends Error {}

/**
 * @param {string[]} argv without the interpreter and the script
 * @param {NodeJS.ProcessEnv} env
 * @returns {{seed: number, maxSteps: number}}
 * @throws {BadOption}
 */
export function readOptions(argv, env) {
  const { seed = env.MUXSIM_SEED, 'max-steps': maxSteps } = readArguments(argv);
  return {
    seed: seed === undefined ? randomInt(RANDOM_SEEDS) : wholeNumber(seed, 'seed', 0),
    maxSteps: maxSteps === undefined ? DEFAULT_MAX_STEPS : wholeNumber(maxSteps, 'max-steps', 1),
  };
}

/** @param {string[]} argv */
function readArguments(argv) {
  try {
    return parseArgs({
      args: argv,
      options: { seed: { type: 'string' }, 'max-steps': { type: 'string' } },
    }).values;
  } catch (error) {
    const [firstLine] = /** @type {Error} */ (error).message.split('\n');
    throw new BadOption(firstLine);
  }
}

/**
 * @param {string} text
 * @param {string} name
 * @param {number} least
 */
function wholeNumber(text, name, least) {
  const number = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(number) && number >= least) return number;
  const range = `from ${least} to ${Number.MAX_SAFE_INTEGER}`;
  throw new BadOption(`the ${name} must be a whole number ${range}, not '${text}'`);
}
