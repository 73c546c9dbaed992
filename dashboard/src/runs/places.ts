import { go, link } from "../route.ts";
import type { Run } from "./data.ts";

/** What the page shows: of several runs, each link begins with the key of one. */
export type Place =
  | { readonly is: "all" }
  | { readonly is: "difference"; readonly one: Run; readonly other: Run }
  | { readonly is: "run"; readonly run: Run }
  | { readonly is: "episode"; readonly run: Run; readonly id: string };

const DIFFERENCE = "difference";

/** What a route leads to; null for nowhere. */
export function placeOf(parts: readonly string[], runs: readonly Run[]): Place | null {
  const [alone] = runs;
  if (runs.length === 1 && alone) {
    const id = parts[0] === alone.key ? parts[1] : parts[0];
    return id === undefined ? { is: "run", run: alone } : { is: "episode", run: alone, id };
  }
  const [first, second, third] = parts;
  if (first === undefined) return { is: "all" };
  const find = (key: string | undefined): Run | undefined => runs.find((run) => run.key === key);
  if (first === DIFFERENCE) {
    const [one, other] = [find(second), find(third)];
    return one && other ? { is: "difference", one, other } : null;
  }
  const run = find(first);
  if (!run) return null;
  return second === undefined ? { is: "run", run } : { is: "episode", run, id: second };
}

/** The parts of the route to a run, or to an episode of it. */
function partsTo(run: Run, id?: string): string[] {
  return [...(run.key ? [run.key] : []), ...(id === undefined ? [] : [id])];
}

export const runLink = (run: Run): string => link(...partsTo(run));
export const episodeLink = (run: Run, id: string): string => link(...partsTo(run, id));
export const differenceLink = (one: Run, other: Run): string => link(DIFFERENCE, one.key, other.key);
export const open = (run: Run, id?: string): void => go(...partsTo(run, id));

