import { signal } from "@preact/signals";
import type { RunComparison } from "./comparison.ts";
import type { Details, Episode, Json, Metrics, Config, Run } from "./data.ts";
import { isStored, linkTo, type Source } from "./source.ts";

type Packed = Omit<Episode, "index"> & { readonly pack: readonly [number, number] };

/** The index of the file: `place` is the way from it to the run's folder. */
interface Index {
  readonly name: string;
  readonly config: Config;
  readonly metrics: Metrics;
  readonly tools: readonly Json[];
  readonly episodes: readonly Packed[];
  readonly place: string;
}

interface Several {
  readonly runs: readonly Index[];
  readonly comparison: RunComparison;
}

/** The run that the page itself holds, or several and how they compare; null for a page that holds none. */
export function fileSource(): Source | null {
  const [one, several] = [read("run") as Index | null, read("runs") as Several | null];
  const indices = several?.runs ?? (one ? [one] : []);
  if (!indices.length) return null;
  const runs = indices.map(({ name, config, metrics, episodes }, index) => ({
    name, config, metrics, key: several ? String(index + 1) : "", state: metrics.complete ? "complete" as const : "incomplete" as const, playing: [],
    episodes: episodes.map((episode, place) => ({ ...episode, index: place })),
  }));
  const indexOf = ({ key }: Run): Index | undefined => indices[several ? Number(key) - 1 : 0];
  let unpacked: { number: number; episodes: Promise<unknown[]> } | null = null;

  // Packs stand behind the script, so the page may still be coming when one is asked for.
  const details = async (run: Run, { index }: Episode): Promise<Details> => {
    const [number, at] = indexOf(run)?.episodes[index]?.pack ?? [0, 0];
    await complete;
    if (unpacked?.number !== number) unpacked = { number, episodes: unpack(number) };
    const whole = (await unpacked.episodes)[at] as Details & { tools: number };
    return { ...whole, tools: indexOf(run)?.tools[whole.tools] ?? null };
  };

  return {
    runs: signal(runs),
    connection: signal({ is: "file" }),
    comparison: signal(several?.comparison ?? null),
    details,
    image: (_, reference) => (isStored(reference) ? document.getElementById(reference)?.textContent ?? null : null),
    file: (run, path) => linkTo(indexOf(run)?.place ?? ".", path),
  };
}

function read(id: string): unknown {
  const text = document.getElementById(id)?.textContent;
  return text ? JSON.parse(text) : null;
}

const complete = new Promise<void>((resolve) => {
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", () => resolve());
  else resolve();
});

async function unpack(number: number): Promise<unknown[]> {
  const text = document.getElementById(`pack-${number}`)?.textContent ?? "";
  const packed = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return await new Response(stream).json() as unknown[];
}
