import { Chip } from "../parts/basics.tsx";
import { number, percent, signed, words } from "../numbers.ts";
import { type Episode, environmentsOf, FAILED, type Run, type State } from "./data.ts";

const endMood = (end: string): "bad" | "plain" | "warn" => (FAILED.has(end) ? "bad" : end === "terminated" ? "plain" : "warn");

const END_COLORS: Readonly<Record<string, string>> = { terminated: "k2", truncated: "k4", max_steps: "k1", no_tool_call: "k5", token_limit: "k3" };

/** The class that colors a kind of end in bars. */
export const endKind = (end: string): string => (FAILED.has(end) ? "k-bad" : END_COLORS[end] ?? "");

export function End({ end }: { end: string | null }) {
  return end === null ? <Chip mood="good">playing</Chip> : <Chip mood={endMood(end)}>{words(end)}</Chip>;
}

const STATES = { running: ["good", "running"], complete: ["good", "complete"], incomplete: ["bad", "incomplete"] } as const;

export function StateOf({ state }: { state: State }) {
  const [mood, name] = STATES[state];
  return <Chip mood={mood}>{state === "running" ? <span class="pulse" aria-hidden="true" /> : null}{name}</Chip>;
}

/** The class of an environment's color. */
export function colorOf(run: Run, env: string): string {
  return `k${Math.max(0, environmentsOf(run).indexOf(env)) % 6}`;
}

export function EnvTag({ run, env }: { run: Run; env: string }) {
  return <span class="env"><span class={`dot ${colorOf(run, env)}`} aria-hidden="true" />{env}</span>;
}

export const signOf = (value: number | null | undefined): string =>
  value === null || value === undefined ? "none" : value > 0 ? "positive" : value < 0 ? "negative" : "zero";

export const reward = (value: number | null | undefined): string => (value === null || value === undefined ? "–" : number(value));

export const within = (interval: readonly [number, number] | null, put: (value: number) => string = (value) => number(value)): string =>
  !interval ? "" : put(interval[0]) === put(interval[1]) ? "no spread" : `${put(interval[0])} to ${put(interval[1])}`;

/** Of several, as shares of a hundred. */
export const share = (value: number, of: number): string => percent(of ? value / of : 0);

export function Reward({ value, sign = false }: { value: number | null; sign?: boolean }) {
  return <span class={signOf(value)}>{value === null ? "–" : sign ? signed(value) : number(value)}</span>;
}

export function when(iso: string): string {
  const date = new Date(iso);
  return Number.isNaN(date.getTime()) ? "" : `${date.toISOString().slice(0, 16).replace("T", " ")} UTC`;
}

/** The policy of a run: its name, and the settings that it was given. */
export function policyOf({ config: { policy } }: Run): { name: string; more: string } {
  const { kind, model, name, ...rest } = policy;
  const main = [kind, model ?? name].filter((one): one is string => typeof one === "string" && one !== "").join(" · ");
  const more = Object.entries(rest).filter((one): one is [string, string | number | boolean] => one[1] !== null && typeof one[1] !== "object");
  return { name: main || "policy", more: more.map(([key, value]) => `${words(key)} ${String(value)}`).join(", ") };
}

/** What is said of an episode where a pointer is on its mark. */
export function about(one: Episode): string {
  const earned = one.valid && one.reward !== null ? `reward ${number(one.reward)}` : "no reward";
  return `${one.id}\n${one.end === null ? "playing" : words(one.end)}, ${earned}, ${one.steps} step${one.steps === 1 ? "" : "s"}`;
}
