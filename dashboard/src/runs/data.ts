/** What is known of runs: as `muxsim.rollouts.view.shown` and the metrics of a run write it. */

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

export interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
}

type Interval = readonly [number, number];

/** Counts and rewards of some episodes; a reward is null where none is known. */
export interface Counts {
  readonly episodes: number;
  readonly valid: number;
  readonly scored: number;
  readonly steps: number;
  readonly mean_reward: number | null;
  readonly median_reward: number | null;
  readonly min_reward: number | null;
  readonly max_reward: number | null;
  readonly std_reward: number | null;
  readonly mean_interval: Interval | null;
  readonly success_rate: number | null;
  readonly success_interval: Interval | null;
  readonly pass_at_k: Readonly<Record<string, { readonly value: number }>>;
  readonly end_reasons: Readonly<Record<string, number>>;
}

export interface RowCounts extends Counts {
  readonly row: string;
  readonly env: string;
}

export interface Spread {
  readonly total: number;
  readonly mean: number;
  readonly longest: number;
}

export interface Metrics extends Counts {
  readonly seconds: number;
  readonly steps_per_second: number | null;
  readonly usage: Usage;
  readonly times: Readonly<Record<string, Spread>>;
  readonly environments: Readonly<Record<string, Counts>>;
  readonly rows: readonly RowCounts[];
  readonly started_at: string;
  readonly complete: boolean;
  readonly planned: number | null;
  readonly problem: string | null;
}

export interface Config {
  readonly policy: Readonly<Record<string, Json>>;
  readonly dataset: string;
  readonly url: string;
  readonly muxsim: string;
  readonly started_at: string;
  readonly [key: string]: Json;
}

/** What the tables and curves show of an episode; `end` is null while it is being played. */
export interface Episode {
  readonly id: string;
  readonly row: string;
  readonly sample: number;
  readonly env: string;
  readonly seed: number;
  readonly end: string | null;
  readonly valid: boolean;
  readonly reward: number | null;
  readonly steps: number;
  readonly seconds: number;
  readonly tokens: number;
  /** The sum of rewards after each step, thinned. */
  readonly curve: readonly number[];
  readonly images_left_out: number;
  /** Its place among those of its run, in the order in which they ended. */
  readonly index: number;
}

/** `running`: it is being written; `incomplete`: it is not, and has not come to its end. */
export type State = "running" | "complete" | "incomplete";

export interface Run {
  /** Its name in links; "" for the one run of a file. */
  readonly key: string;
  readonly name: string;
  readonly config: Config;
  readonly metrics: Metrics;
  readonly state: State;
  readonly episodes: readonly Episode[];
  /** Episodes under way, as far as that is known. */
  readonly playing: readonly Episode[];
}

export interface Control {
  readonly reward: number | null;
  readonly terminated: boolean;
  readonly truncated: boolean;
  readonly info: Readonly<Record<string, Json>>;
  readonly problem: string | null;
}

export interface Step {
  readonly index: number;
  readonly tool: string;
  readonly arguments: Json;
  readonly call_id: string;
  readonly content: readonly Json[];
  readonly is_error: boolean;
  readonly control: Control | null;
  readonly structured: Json;
  readonly model_seconds: number;
  readonly tool_seconds: number;
  readonly control_seconds: number;
}

interface ToolCall {
  readonly id?: string;
  readonly function?: { readonly name?: string; readonly arguments?: string };
}

/** A message of the conversation; `step` in place of the result that the step of this number has. */
export interface Message {
  readonly role: string;
  readonly content?: Json;
  readonly step?: number;
  readonly tool_calls?: readonly ToolCall[] | null;
  readonly reasoning?: Json;
  readonly reasoning_content?: Json;
  readonly finish_reason?: string;
}

export interface KeptFile {
  readonly path: string;
  readonly file: string;
  readonly size: number;
  readonly sha256: string;
}

/** A whole episode. */
export interface Details {
  readonly id: string;
  readonly row: string;
  readonly sample: number;
  readonly env: string;
  readonly seed: number;
  readonly session: string;
  readonly end_reason: string | null;
  readonly valid: boolean;
  readonly total_reward: number | null;
  readonly messages: readonly Message[];
  readonly steps: readonly Step[];
  readonly tools: Json;
  readonly initial_state: { readonly observation?: Json } | null;
  readonly usage: Usage;
  readonly times: Readonly<Record<string, number>>;
  readonly started_at: string;
  readonly seconds: number;
  readonly scores: Readonly<Record<string, number>>;
  readonly error: string | null;
  readonly traceback: string;
  readonly stderr: readonly string[];
  readonly files: readonly KeptFile[];
  readonly files_problem: string | null;
  readonly evaluation_criteria: Json;
  readonly info: Json;
}

export const isScored = (one: Episode): one is Episode & { reward: number } => one.valid && one.reward !== null;

export const rewardOf = (step: Step | null): number | null => step?.control?.reward ?? null;

/** Ends that say nothing of the policy: environment or machinery failed. */
export const FAILED: ReadonlySet<string> = new Set([
  "episode_timeout", "tool_timeout", "env_crashed", "env_failed", "machinery_failed", "env_start_failed", "policy_error",
  "rate_limited", "cancelled",
]);

/** The environments of a run, in the order that gives each its color. */
export function environmentsOf(run: Run): readonly string[] {
  return Object.keys(run.metrics.environments);
}
