import type { Signal } from "@preact/signals";
import type { ComponentChildren, RefObject } from "preact";
import { compact, many, seconds, words } from "../numbers.ts";
import { type Choice, chosen, type Column, ROWS_AT_ONCE } from "./choice.ts";
import { environmentsOf, type Episode, type Run } from "./data.ts";
import { episodeLink, open } from "./places.ts";
import { extent, points, scale } from "../parts/scales.ts";
import { colorOf, End, EnvTag, Reward } from "./words.tsx";

function Spark({ run, episode: { curve, env } }: { run: Run; episode: Episode }) {
  const x = scale(0, curve.length - 1, 1, 95);
  const [low, high] = extent(curve);
  return (
    <svg class={`spark ${colorOf(run, env)}`} viewBox="0 0 96 20" preserveAspectRatio="none" aria-hidden="true">
      {curve.length > 1 ? <polyline class="rail" points={points(curve, x, scale(low, high, 17, 3))} /> : null}
    </svg>
  );
}

interface Shown {
  readonly key: Column | "";
  readonly name: string;
  readonly kind?: "number" | "name";
  readonly cell: (one: Episode, run: Run) => ComponentChildren;
}

const COLUMNS: readonly Shown[] = [
  { key: "index", name: "#", kind: "number", cell: (one) => <span class="zero">{one.index + 1}</span> },
  { key: "id", name: "Episode", kind: "name", cell: (one, run) => <a href={episodeLink(run, one.id)} title={one.id}>{one.id}</a> },
  { key: "env", name: "Environment", cell: (one, run) => <EnvTag run={run} env={one.env} /> },
  { key: "seed", name: "Seed", kind: "number", cell: (one) => one.seed },
  { key: "end", name: "End", cell: (one) => <End end={one.end} /> },
  { key: "steps", name: "Steps", kind: "number", cell: (one) => one.steps },
  { key: "reward", name: "Reward", kind: "number", cell: (one) => <Reward value={one.reward} /> },
  { key: "", name: "Sum of rewards", kind: "number", cell: (one, run) => <Spark run={run} episode={one} /> },
  { key: "tokens", name: "Tokens", kind: "number", cell: (one) => (one.tokens ? compact(one.tokens) : "–") },
  { key: "seconds", name: "Time", kind: "number", cell: (one) => seconds(one.seconds) },
  { key: "valid", name: "Valid", cell: (one) => (one.valid ? <span class="positive">✓</span> : one.end === null ? "–" : <span class="negative">✕ failed</span>) },
];

// Of these one wants to see the greatest first.
const DOWN_FIRST: ReadonlySet<string> = new Set(["reward", "steps", "seconds", "tokens"]);

function Head({ column: { key, name, kind }, choice }: { column: Shown; choice: Signal<Choice> }) {
  const sorted = key !== "" && choice.value.sort === key;
  const { down } = choice.value;
  if (key === "") return <th class={kind ?? ""} scope="col"><span class="plain">{name}</span></th>;
  const sort = (): void => {
    choice.value = { ...choice.value, sort: key, down: sorted ? !down : DOWN_FIRST.has(key), shown: ROWS_AT_ONCE };
  };
  return (
    <th class={kind ?? ""} scope="col" {...(sorted ? { "aria-sort": down ? "descending" as const : "ascending" as const } : {})}>
      <button type="button" onClick={sort}>{name}{sorted ? (down ? " ↓" : " ↑") : ""}</button>
    </th>
  );
}

export function Row({ run, episode }: { run: Run; episode: Episode }) {
  const go = (event: MouseEvent): void => { if (!(event.target instanceof HTMLAnchorElement)) open(run, episode.id); };
  return <tr onClick={go}>{COLUMNS.map((column) => <td key={column.name} class={column.kind ?? ""}>{column.cell(episode, run)}</td>)}</tr>;
}

/** The table of all episodes that are chosen, some at a time. */
export function Episodes({ run, choice, search }: { run: Run; choice: Signal<Choice>; search: RefObject<HTMLInputElement | null> }) {
  const all = run.episodes;
  const list = chosen(all, choice.value);
  const rest = Math.max(0, list.length - choice.value.shown);
  const { group } = choice.value;
  const put = (changes: Partial<Choice>): void => { choice.value = { ...choice.value, shown: ROWS_AT_ONCE, ...changes }; };
  return (
    <section class="panel" aria-label="Episodes">
      <div class="tools">
        <h2>Episodes</h2>
        <span class="count" role="status">{list.length === all.length ? many(all.length, "episode") : `${list.length} of ${many(all.length, "episode")}`}</span>
        <button type="button" class="button" title="Show all rows again" hidden={!group} onClick={() => put({ group: "" })}>row {group} ✕</button>
        <span class="grow" />
        <Filters run={run} choice={choice.value} put={put} search={search} />
      </div>
      <div class="scroll" tabIndex={0} role="region" aria-label="All episodes">
        <table>
          <thead><tr>{COLUMNS.map((column) => <Head key={column.name} column={column} choice={choice} />)}</tr></thead>
          <tbody>{list.slice(0, choice.value.shown).map((one) => <Row key={one.index} run={run} episode={one} />)}</tbody>
        </table>
      </div>
      {rest || !list.length ? (
        <div class="empty">
          {rest ? (
            <button type="button" class="button" onClick={() => put({ shown: choice.value.shown + ROWS_AT_ONCE })}>
              Show {Math.min(rest, ROWS_AT_ONCE)} more of {rest}
            </button>
          ) : run.state === "running" && !all.length ? "No episode has ended yet." : "No episode is like that."}
        </div>
      ) : null}
    </section>
  );
}

function Filters({ run, choice, put, search }: { run: Run; choice: Choice; put: (changes: Partial<Choice>) => void; search: RefObject<HTMLInputElement | null> }) {
  return (
    <>
      <input
        ref={search} class="field" type="search" placeholder="Find an episode…" aria-label="Find an episode" value={choice.text}
        onInput={(event) => put({ text: event.currentTarget.value })}
      />
      {([["from", "at least"], ["to", "at most"]] as const).map(([key, name]) => (
        <input
          key={key} class="field bound" type="number" step="any" placeholder={`reward ${name}`} aria-label={`Reward ${name}`} value={choice[key]}
          onInput={(event) => put({ [key]: event.currentTarget.value })}
        />
      ))}
      <select class="field" aria-label="Environment" value={choice.env} onChange={(event) => put({ env: event.currentTarget.value })}>
        <option value="">all environments</option>
        {environmentsOf(run).map((name) => <option key={name} value={name}>{name}</option>)}
      </select>
      <select class="field" aria-label="End" value={choice.end} onChange={(event) => put({ end: event.currentTarget.value })}>
        <option value="">all ends</option>
        <option value="valid">valid</option>
        <option value="failed">failed</option>
        {Object.keys(run.metrics.end_reasons).map((name) => <option key={name} value={name}>{words(name)}</option>)}
      </select>
    </>
  );
}
