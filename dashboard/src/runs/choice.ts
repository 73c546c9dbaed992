import { signal, type Signal } from "@preact/signals";
import { words } from "../numbers.ts";
import { type Episode, isScored, type Run } from "./data.ts";

export const ROWS_AT_ONCE = 200;

/** Which episodes of a run its reader wants to see, and in which order. */
export interface Choice {
  readonly text: string;
  readonly env: string;
  readonly end: string;
  readonly group: string;
  /** The bounds of the reward, as they were typed. */
  readonly from: string;
  readonly to: string;
  readonly sort: Column;
  readonly down: boolean;
  readonly shown: number;
}

export type Column = "index" | "id" | "env" | "seed" | "end" | "steps" | "reward" | "tokens" | "seconds" | "valid";

const ALL: Choice = { text: "", env: "", end: "", group: "", from: "", to: "", sort: "index", down: false, shown: ROWS_AT_ONCE };

// Coming back from an episode finds the list as it was left.
const choices = new Map<string, Signal<Choice>>();

export function choiceOf({ key }: Run): Signal<Choice> {
  let choice = choices.get(key);
  if (!choice) choices.set(key, choice = signal(ALL));
  return choice;
}

/** The episodes that are like that. */
export function chosen(episodes: readonly Episode[], choice: Choice): Episode[] {
  const { env, end, group, sort, down } = choice;
  const needle = choice.text.trim().toLowerCase();
  return episodes
    .filter((one) => (!env || one.env === env) && (!group || one.row === group) && inReach(one, choice)
      && (!end || one.end === end || (end === "valid" && one.valid) || (end === "failed" && !one.valid))
      && (!needle || `${one.id} ${one.env} ${one.seed} ${words(one.end ?? "playing")}`.toLowerCase().includes(needle)))
    .sort(by(sort, down));
}

function inReach(one: Episode, { from, to }: Choice): boolean {
  const [low, high] = [from, to].map((text) => (text.trim() === "" ? null : Number(text)));
  return (low === null || low === undefined || (isScored(one) && one.reward >= low)) && (high === null || high === undefined || (isScored(one) && one.reward <= high));
}

function by(key: Column, down: boolean): (a: Episode, b: Episode) => number {
  return (a, b) => {
    const [one, other] = [a[key], b[key]];
    if (one === null || other === null) return one === other ? a.index - b.index : one === null ? 1 : -1;
    const result = typeof one === "string" ? one.localeCompare(String(other), "en", { numeric: true }) : Number(one) - Number(other);
    return (down ? -result : result) || a.index - b.index;
  };
}
