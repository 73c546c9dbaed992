/** How runs differ from the first of them: as `muxsim.rollouts.data.comparison` writes it. */

type Interval = readonly [number, number];

export interface Change {
  readonly pairs: number;
  readonly first: number;
  readonly second: number;
  readonly difference: number;
  readonly interval: Interval | null;
  readonly more: number;
  readonly same: number;
  readonly less: number;
  readonly sign_test: number | null;
}

export interface RunDifference {
  readonly first: string;
  readonly second: string;
  readonly paired_by: string;
  readonly pairs: number;
  readonly figures: Readonly<Record<string, Change>>;
  readonly ends: Readonly<Record<string, Change>>;
  /** What else than the policy is not the same. */
  readonly differs: readonly string[];
  readonly notes: readonly string[];
}

export interface RunComparison {
  readonly differences: readonly RunDifference[];
  readonly notes: readonly string[];
}
