import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { compact, count, number, percent, seconds, words } from "../numbers.ts";
import { EndsBar } from "./bars.tsx";
import { Compared } from "./compared.tsx";
import type { RunComparison } from "./comparison.ts";
import { Curves } from "./curves.tsx";
import type { Json, Run } from "./data.ts";
import { means } from "./pairs.ts";
import { differenceLink, runLink } from "./places.ts";
import { extent, scale } from "../parts/scales.ts";
import { Top } from "./top.tsx";
import { endKind, policyOf, share, StateOf, when, within } from "./words.tsx";

/** All runs, one beside the other. */
export function SideBySide({ runs, comparison }: { runs: readonly Run[]; comparison: RunComparison | null }) {
  return (
    <>
      <Top />
      <div class="title"><h1>{runs.length} runs</h1></div>
      <div class="under"><span>{comparison ? "each against the first, then " : ""}side by side; what differs in how they were played stands last</span></div>
      {comparison ? <Compared comparison={comparison} runs={runs} /> : null}
      <Curves runs={runs} />
      <Chooser runs={runs} />
      <section class="panel" aria-label="Runs side by side">
        <div class="scroll" tabIndex={0} role="region" aria-label="Figures of the runs">
          <table class="beside still">
            <thead>
              <tr>
                <td />
                {runs.map((run) => <th key={run.key} scope="col"><a href={runLink(run)}>{run.name}</a> <StateOf state={run.state} /></th>)}
              </tr>
            </thead>
            <tbody>
              {FIGURES.map(({ name, cell }) => (
                <tr key={name}><th scope="row">{name}</th>{runs.map((run) => <td key={run.key}>{cell(run, runs)}</td>)}</tr>
              ))}
              {settings(runs).map(([name, values]) => (
                <tr key={name}><th scope="row" class="mono">{name}</th>{values.map((value, index) => <td key={runs[index]?.key ?? index} class="mono">{value}</td>)}</tr>
              ))}
            </tbody>
          </table>
        </div>
      </section>
    </>
  );
}

/** Which two are to be compared row by row. */
function Chooser({ runs }: { runs: readonly Run[] }) {
  const [one, setOne] = useState(0);
  const [other, setOther] = useState(1);
  const [first, second] = [runs[one], runs[other]];
  const choice = (label: string, value: number, set: (value: number) => void) => (
    <select class="field" aria-label={label} value={String(value)} onChange={(event) => set(Number(event.currentTarget.value))}>
      {runs.map((run, index) => <option key={run.key} value={String(index)}>{run.name}</option>)}
    </select>
  );
  return (
    <p class="chooser">
      Row by row: from {choice("From", one, setOne)} to {choice("To", other, setOther)}
      {first && second && one !== other
        ? <a class="button main" href={differenceLink(first, second)}>The difference</a> : <span class="soft">choose two</span>}
    </p>
  );
}

interface Figure {
  readonly name: string;
  readonly cell: (run: Run, runs: readonly Run[]) => ComponentChildren;
}

const big = (value: string, more?: string) => <><span class="figure">{value}</span>{more ? <span class="soft"> {more}</span> : null}</>;

const FIGURES: readonly Figure[] = [
  { name: "Policy", cell: (run) => <><b>{policyOf(run).name}</b> <span class="soft">{policyOf(run).more}</span></> },
  { name: "Reward", cell: (run, runs) => <MeanReward run={run} runs={runs} /> },
  { name: "Success", cell: ({ metrics }) => (metrics.success_rate === null ? "–" : big(percent(metrics.success_rate), within(metrics.success_interval, percent))) },
  {
    name: "Ends", cell: ({ metrics }) => (
      <>
        <EndsBar ends={metrics.end_reasons} />
        <div class="legend">
          {Object.entries(metrics.end_reasons).map(([end, times]) => (
            <span key={end}><span class={`dot ${endKind(end)}`} aria-hidden="true" />{words(end)} {share(times, metrics.episodes)}</span>
          ))}
        </div>
      </>
    ),
  },
  { name: "Episodes", cell: ({ metrics, state }) => <Played played={metrics.episodes} planned={state === "complete" ? null : metrics.planned} failed={metrics.episodes - metrics.valid} /> },
  { name: "Steps", cell: (run) => per(means(run.episodes).steps, (value) => number(value, 1), `${count(run.metrics.steps)} in all`) },
  {
    name: "Tokens", cell: (run) => (run.metrics.usage.total_tokens
      ? per(means(run.episodes).tokens, (value) => compact(Math.round(value)), `${compact(run.metrics.usage.total_tokens)} in all, ${compact(run.metrics.usage.completion_tokens)} written`) : "–"),
  },
  { name: "Time", cell: (run) => per(means(run.episodes).seconds, seconds, `${seconds(run.metrics.seconds)} in all`) },
  { name: "Steps per second", cell: ({ metrics }) => (metrics.steps_per_second === null ? "–" : big(number(metrics.steps_per_second, 1))) },
  { name: "Began", cell: ({ metrics, config }) => when(metrics.started_at || config.started_at) },
];

function per(value: number | null, write: (value: number) => string, more: string) {
  return value === null ? "–" : big(write(value), `an episode, ${more}`);
}

function Played({ played, planned, failed }: { played: number; planned: number | null; failed: number }) {
  return (
    <>
      {big(count(played), planned === null ? "" : `of ${count(planned)}`)}
      {failed ? <span class="negative"> {failed} failed</span> : null}
      {planned ? <progress max={planned} value={played} aria-label="Episodes that have ended" /> : null}
    </>
  );
}

const WIDTH = 160;
const MIDDLE = 10;

/** The mean and its interval, on the scale of all runs. */
function MeanReward({ run: { metrics }, runs }: { run: Run; runs: readonly Run[] }) {
  const { mean_reward: mean, mean_interval: interval } = metrics;
  if (mean === null) return <>–</>;
  // Rewards of different environments have nothing in common but the name.
  const played = Object.keys(metrics.environments).join();
  const [low, high] = extent(runs.filter((run) => Object.keys(run.metrics.environments).join() === played).flatMap((run) => [run.metrics.mean_reward, ...(run.metrics.mean_interval ?? [])]).filter((value) => value !== null));
  const x = scale(low, high, 6, WIDTH - 6);
  return (
    <>
      {big(number(mean), interval ? `95 %: ${within(interval)}` : "")}
      {low < high ? (
        <svg class="mean" viewBox={`0 0 ${WIDTH} ${MIDDLE * 2}`} aria-hidden="true">
          <line class="grid" x1={0} x2={WIDTH} y1={MIDDLE} y2={MIDDLE} />
          {interval ? <line class="reach" x1={x(interval[0])} x2={x(interval[1])} y1={MIDDLE} y2={MIDDLE} /> : null}
          <circle class="here" cx={x(mean)} cy={MIDDLE} r={4} />
        </svg>
      ) : null}
    </>
  );
}

const OF_EACH = new Set(["started_at"]);
const HASH = /^[0-9a-f]{32,}$/;
const SHORT = 12;

/** What differs in how the runs were played: the name of each setting, and its value in each run. */
export function settings(runs: readonly Run[]): [string, string[]][] {
  const flat = runs.map(({ config }) => new Map(flattened(config)));
  const names = [...new Set(flat.flatMap((one) => [...one.keys()]))].filter((name) => !OF_EACH.has(name));
  return names
    .map((name): [string, string[]] => [name, flat.map((one) => one.get(name) ?? "–")])
    .filter(([, values]) => new Set(values).size > 1);
}

function flattened(value: Readonly<Record<string, Json>>, before = ""): [string, string][] {
  return Object.entries(value).flatMap(([name, item]): [string, string][] => (
    typeof item === "object" && item !== null && !Array.isArray(item)
      ? flattened(item as Readonly<Record<string, Json>>, `${before}${name}.`)
      : [[`${before}${name}`, written(item)]]));
}

function written(value: Json): string {
  if (typeof value === "string") return HASH.test(value) ? value.slice(0, SHORT) : value;
  return Array.isArray(value) ? (value as readonly Json[]).map(written).join(", ") : JSON.stringify(value);
}
