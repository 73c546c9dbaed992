import type { ReadonlySignal } from "@preact/signals";
import { createContext } from "preact";
import { useContext } from "preact/hooks";
import type { RunComparison } from "./comparison.ts";
import type { Details, Episode, Run } from "./data.ts";

/** Whether what is shown is still what there is. */
export type Connection =
  | { readonly is: "file" | "connecting" | "open" }
  | { readonly is: "lost"; readonly why: string };

/** Where runs come from: the file that the page is, or a muxsim that reads their folders. */
export interface Source {
  readonly runs: ReadonlySignal<readonly Run[]>;
  readonly connection: ReadonlySignal<Connection>;
  /** How the runs differ from the first of them, where they can be compared. */
  readonly comparison: ReadonlySignal<RunComparison | null>;
  details: (run: Run, episode: Episode) => Promise<Details>;
  /** What an `img` shows of an image of the run; null for what is no such image. */
  image: (run: Run, reference: string) => string | null;
  /** The link to a file that was kept of a workspace. */
  file: (run: Run, path: string) => string;
}

const STORED = /^images\/[0-9a-f]{64}\.[a-z]+$/;

/** Whether a text is the name of an image that the run has stored: what episodes say may be any text. */
export function isStored(reference: string): boolean {
  return STORED.test(reference);
}

/** A path whose parts are text, as a link. */
export function linkTo(...paths: readonly string[]): string {
  return paths.map((path) => path.split("/").map(encodeURIComponent).join("/")).join("/");
}

interface Here {
  readonly source: Source;
  readonly run: Run;
}

/** The run that is being shown, for all that is inside its page. */
export const RunContext = createContext<Here | null>(null);

export function useHere(): Here {
  const here = useContext(RunContext);
  if (!here) throw new Error("this is shown inside of a run's page only");
  return here;
}
