import { signal } from "@preact/signals";
import type { Details, Episode, Json, Metrics, Config } from "./data.ts";
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

/** The run that the page itself holds; null for a page that holds none. */
export function fileSource(): Source | null {
  const text = document.getElementById("run")?.textContent;
  if (!text) return null;
  const { place, tools, episodes, ...rest } = JSON.parse(text) as Index;
  const packs = episodes.map(({ pack }) => pack);
  const run = {
    ...rest, key: "", state: rest.metrics.complete ? "complete" as const : "incomplete" as const, playing: [],
    episodes: episodes.map((one, index) => ({ ...one, index })),
  };
  let unpacked: { number: number; episodes: Promise<unknown[]> } | null = null;

  // Packs stand behind the script, so the page may still be coming when one is asked for.
  const details = async (_: unknown, { index }: Episode): Promise<Details> => {
    const [number, at] = packs[index] ?? [0, 0];
    await complete;
    if (unpacked?.number !== number) unpacked = { number, episodes: unpack(number) };
    const whole = (await unpacked.episodes)[at] as Details & { tools: number };
    return { ...whole, tools: tools[whole.tools] ?? null };
  };

  return {
    runs: signal([run]),
    connection: signal({ is: "file" }),
    details,
    image: (_, reference) => (isStored(reference) ? document.getElementById(reference)?.textContent ?? null : null),
    file: (_, path) => linkTo(place, path),
  };
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
