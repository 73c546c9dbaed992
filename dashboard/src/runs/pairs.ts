import { type Episode, isScored } from "./data.ts";

/** Means over those valid episodes of which a figure is known; null where there are none. */
export interface Means {
  readonly steps: number | null;
  readonly tokens: number | null;
  readonly seconds: number | null;
}

/** What the episodes of one row, from one seed, came to in one of two runs. */
export interface Half extends Means {
  readonly episodes: readonly Episode[];
  /** How many have a reward, and the mean of these. */
  readonly scored: number;
  readonly reward: number | null;
  /** The kinds of ends, each once. */
  readonly ends: readonly string[];
}

/** A row and seed that was played in one run, the other, or both. */
export interface Pair {
  readonly key: string;
  readonly row: string;
  readonly env: string;
  readonly seed: number;
  readonly one: Half | null;
  readonly other: Half | null;
  /** How much more the other earned; null where either has no reward. */
  readonly difference: number | null;
}

export interface Comparison {
  readonly pairs: readonly Pair[];
  /** Whether the runs have no row in common, so that only environments and seeds were compared. */
  readonly bySeed: boolean;
  readonly better: number;
  readonly same: number;
  readonly worse: number;
  /** The mean of the differences, and half of its interval of 95 %; null where there are too few. */
  readonly mean: number | null;
  readonly margin: number | null;
}

/** Two runs, row by row. */
export function compared(one: readonly Episode[], other: readonly Episode[]): Comparison {
  const byRow = pairsOf(one, other, ({ env, row, seed }) => JSON.stringify([env, row, seed]));
  const bySeed = !byRow.some((pair) => pair.one && pair.other);
  const pairs = bySeed ? pairsOf(one, other, ({ env, seed }) => JSON.stringify([env, seed])) : byRow;
  const differences = pairs.map(({ difference }) => difference).filter((value) => value !== null);
  const mean = meanIn(differences);
  return {
    pairs,
    bySeed,
    better: differences.filter((value) => value > 0).length,
    same: differences.filter((value) => value === 0).length,
    worse: differences.filter((value) => value < 0).length,
    mean,
    margin: mean === null || differences.length < 2 ? null : marginOf(differences, mean),
  };
}

function pairsOf(one: readonly Episode[], other: readonly Episode[], keyOf: (episode: Episode) => string): Pair[] {
  const [ones, others] = [grouped(one, keyOf), grouped(other, keyOf)];
  return [...new Set([...ones.keys(), ...others.keys()])].map((key) => {
    const [mine, theirs] = [half(ones.get(key)), half(others.get(key))];
    const [first] = mine?.episodes ?? theirs?.episodes ?? [];
    const [earned, instead] = [mine?.reward ?? null, theirs?.reward ?? null];
    return {
      key, row: first?.row ?? "", env: first?.env ?? "", seed: first?.seed ?? 0, one: mine, other: theirs,
      difference: earned === null || instead === null ? null : instead - earned,
    };
  });
}

function grouped(episodes: readonly Episode[], keyOf: (episode: Episode) => string): Map<string, Episode[]> {
  const groups = new Map<string, Episode[]>();
  for (const episode of episodes) {
    const key = keyOf(episode);
    const group = groups.get(key);
    if (group) group.push(episode);
    else groups.set(key, [episode]);
  }
  return groups;
}

function half(episodes: readonly Episode[] | undefined): Half | null {
  if (!episodes) return null;
  const rewards = episodes.filter(isScored).map(({ reward }) => reward);
  return {
    episodes,
    scored: rewards.length,
    reward: meanIn(rewards),
    ...means(episodes),
    ends: [...new Set(episodes.map(({ end }) => end ?? "playing"))],
  };
}

/** What the machinery broke says nothing of the policy, and no endpoint has answered without a token. */
export function means(episodes: readonly Episode[]): Means {
  const valid = episodes.filter((one) => one.valid);
  return {
    steps: meanIn(valid.map(({ steps }) => steps)),
    tokens: meanIn(valid.map(({ tokens }) => tokens).filter(Boolean)),
    seconds: meanIn(valid.map(({ seconds }) => seconds)),
  };
}

const meanIn = (values: readonly number[]): number | null => (values.length ? meanOf(values) : null);

function meanOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

// Of the normal distribution: rows are compared by the dozen at least, where it matters.
const NORMAL_95 = 1.96;

function marginOf(values: readonly number[], mean: number): number {
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return NORMAL_95 * Math.sqrt(squares / (values.length - 1) / values.length);
}
