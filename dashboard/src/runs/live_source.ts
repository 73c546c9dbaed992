import { signal } from "@preact/signals";
import type { RunComparison } from "./comparison.ts";
import type { Config, Details, Episode, Metrics, Run, State } from "./data.ts";
import { type Connection, isStored, linkTo, type Source } from "./source.ts";

type Told = Omit<Episode, "index">;

/** What is new of a run: behind its first `from` episodes. */
interface News {
  readonly key: string;
  readonly name: string;
  readonly config: Config;
  /** What is known now, to be said with the next question. */
  readonly mark: string;
  readonly from: number;
  readonly episodes: readonly Told[];
  readonly state: State;
  readonly playing: readonly Told[];
  /** Null where they are what they were. */
  readonly metrics: Metrics | null;
  /** Whether there is more to be told at once. */
  readonly more: boolean;
}

// Milliseconds.
const INTERVAL = 1000;
const WHILE_HIDDEN = 10_000;
const AFTER_LOSS = 3000;
// To compare runs the server reads all of them again: while they are played that is done less often.
const BETWEEN_COMPARISONS = 10_000;

/** The runs that the muxsim behind this page reads, asked for what is new of them again and again. */
export function liveSource(): Source {
  const runs = signal<readonly Run[]>([]);
  const connection = signal<Connection>({ is: "connecting" });
  const comparison = signal<RunComparison | null>(null);
  const marks = new Map<string, string>();
  let compared = { marks: "", at: -Infinity };

  const compare = async (news: readonly News[]): Promise<void> => {
    const now = { marks: [...marks].join(), at: performance.now() };
    const soon = news.some(({ state, more }) => more || state === "running") && now.at - compared.at < BETWEEN_COMPARISONS;
    if (news.length < 2 || soon || now.marks === compared.marks) return;
    comparison.value = await get<RunComparison | null>("./comparison");
    compared = now;
  };

  const look = async (): Promise<number> => {
    try {
      const known = new URLSearchParams([...marks]);
      const news = await get<readonly News[]>(`./news?${known}`);
      for (const { key, mark } of news) marks.set(key, mark);
      runs.value = merged(runs.value, news);
      await compare(news);
      if (connection.value.is !== "open") connection.value = { is: "open" };
      return news.some(({ more }) => more) ? 0 : document.hidden ? WHILE_HIDDEN : INTERVAL;
    } catch (error) {
      const why = error instanceof Error ? error.message : "no connection";
      if (connection.value.is !== "lost") connection.value = { is: "lost", why };
      return AFTER_LOSS;
    }
  };
  const go = async (): Promise<never> => {
    for (;;) await waited(await look());
  };
  void go();

  return {
    runs,
    connection,
    comparison,
    details: ({ key }, { id }) => get<Details>(`./runs/${encodeURIComponent(key)}/episode?id=${encodeURIComponent(id)}`),
    image: ({ key }, reference) => (isStored(reference) ? `./runs/${encodeURIComponent(key)}/${reference}` : null),
    file: ({ key }, path) => `./runs/${linkTo(key, path)}`,
  };
}

/** The runs with their news. What is unchanged stays the same object, so that it is not drawn again. */
export function merged(runs: readonly Run[], news: readonly News[]): readonly Run[] {
  const known = new Map(runs.map((run) => [run.key, run]));
  const now = news.map((one) => changed(known.get(one.key), one));
  return now.length === runs.length && now.every((run, index) => run === runs[index]) ? runs : now;
}

function changed(before: Run | undefined, { key, name, config, from, state, ...one }: News): Run {
  const metrics = one.metrics ?? before?.metrics;
  if (!metrics) throw new Error(`nothing is known of run ${key}`);
  if (before && !one.metrics && !one.episodes.length && !one.playing.length && !before.playing.length) return before;
  const numbered = (episodes: readonly Told[], first: number): Episode[] => episodes.map((episode, index) => ({ ...episode, index: first + index }));
  const kept = before?.episodes.length === from ? before.episodes : before?.episodes.slice(0, from) ?? [];
  const episodes = one.episodes.length ? [...kept, ...numbered(one.episodes, from)] : kept;
  return { key, name, config, state, metrics, episodes, playing: numbered(one.playing, episodes.length) };
}

async function get<T>(path: string): Promise<T> {
  const response = await fetch(path, { cache: "no-store", credentials: "omit", redirect: "error" });
  if (!response.ok) throw new Error((await response.text()).slice(0, 500) || `HTTP ${response.status}`);
  return await response.json() as T;
}

function waited(milliseconds: number): Promise<void> {
  if (!milliseconds) return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(done, milliseconds);
    // Whoever comes back to the page sees at once what is new.
    function done(): void {
      document.removeEventListener("visibilitychange", done);
      clearTimeout(timer);
      resolve();
    }
    document.addEventListener("visibilitychange", done);
  });
}
