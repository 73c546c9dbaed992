import { type Episode, isScored, type Run } from "./data.ts";
import { extent } from "../parts/scales.ts";

export interface Point {
  readonly x: number;
  readonly y: number;
}

type Scored = Episode & { readonly reward: number };

const MOST_POINTS = 120;
// As many as `muxsim.rollouts.view.shown` leaves of a curve.
const THINNED = 60;
const CLOSE = 1e-4;

export const scoredIn = (run: Run, env: string): readonly Scored[] => run.episodes.filter(isScored).filter((one) => one.env === env);

/** The environments that several of the runs have rewards of. */
export function sharedEnvironments(runs: readonly Run[]): readonly string[] {
  const envs = new Set(runs.flatMap(({ episodes }) => episodes.map(({ env }) => env)));
  return [...envs].filter((env) => runs.filter((run) => scoredIn(run, env).length).length > 1);
}

/**
 * The mean of what episodes have earned after each step; one that is over keeps what it has.
 *
 * Empty where that does not lead to their rewards: something else than the environment has scored them.
 */
export function course(episodes: readonly Scored[], steps: number): readonly Point[] {
  const told = episodes.map(({ curve, steps: taken, reward }) => ({ at: places(curve.length, taken), curve, reward }));
  const own = told.every(({ curve, reward }) => Math.abs((curve.at(-1) ?? 0) - reward) <= CLOSE * Math.max(1, Math.abs(reward)));
  if (!episodes.length || !own || !steps) return [];
  const count = Math.min(steps, MOST_POINTS);
  return Array.from({ length: count + 1 }, (_, index) => {
    const x = (index * steps) / count;
    return { x, y: told.reduce((sum, { at, curve }) => sum + earned(at, curve, x), 0) / told.length };
  });
}

/** After how many steps each point of a curve stands. */
export function places(points: number, steps: number): readonly number[] {
  const stride = Math.ceil((steps + 1) / THINNED);
  return Array.from({ length: points }, (_, index) => (index === points - 1 ? steps : index * stride));
}

function earned(at: readonly number[], curve: readonly number[], x: number): number {
  const next = at.findIndex((place) => place > x);
  if (next < 0) return curve.at(-1) ?? 0;
  const [from, to, low, high] = [at[next - 1] ?? 0, at[next] ?? 0, curve[next - 1] ?? 0, curve[next] ?? 0];
  return low + ((x - from) / (to - from || 1)) * (high - low);
}

/** For each reward the share of episodes that have earned it or more, as stairs. */
export function shares(episodes: readonly Scored[], low: number, high: number): readonly Point[] {
  const rewards = episodes.map(({ reward }) => reward).sort((a, b) => a - b);
  const stairs: Point[] = [{ x: low, y: 1 }];
  rewards.forEach((reward, index) => {
    stairs.push({ x: reward, y: 1 - index / rewards.length }, { x: reward, y: 1 - (index + 1) / rewards.length });
  });
  return rewards.length ? [...stairs, { x: high, y: 0 }] : [];
}

/** The stretch of all rewards, with room where they are all the same. */
export function stretch(episodes: readonly Scored[]): [number, number] {
  const [low, high] = extent(episodes.map(({ reward }) => reward));
  return low < high ? [low, high] : [low - 0.5, high + 0.5];
}
