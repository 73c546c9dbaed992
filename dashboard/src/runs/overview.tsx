import { useEffect, useRef } from "preact/hooks";
import { Alert } from "../parts/basics.tsx";
import { count, many, number, seconds, words } from "../numbers.ts";
import { EndsBar, Stages } from "./bars.tsx";
import { choiceOf } from "./choice.ts";
import { pretty } from "./content.tsx";
import { environmentsOf, type Run } from "./data.ts";
import { Episodes } from "./episodes.tsx";
import { Groups } from "./groups.tsx";
import { useKeys } from "./keys.ts";
import { episodeLink } from "./places.ts";
import { RewardFigure } from "./reward_chart.tsx";
import { Tiles } from "./tiles.tsx";
import { endKind, EnvTag, policyOf, Reward, share, StateOf, when } from "./words.tsx";

const left = new Map<string, number>();

/** A run: its figures, how rewards and ends came about, and its episodes. */
export function Overview({ run }: { run: Run }) {
  const search = useRef<HTMLInputElement>(null);
  const choice = choiceOf(run);
  useKeys({ "/": () => search.current?.focus() });
  useEffect(() => {
    scrollTo(0, left.get(run.key) ?? 0);
    const keep = (): void => { left.set(run.key, scrollY); };
    addEventListener("scroll", keep, { passive: true });
    return () => removeEventListener("scroll", keep);
  }, [run.key]);
  const show = (changes: { end: string } | { group: string }): void => {
    choice.value = { ...choice.value, ...changes };
    search.current?.scrollIntoView({ block: "center" });
  };
  return (
    <>
      <Title run={run} />
      <Missing run={run} />
      <Playing run={run} />
      <Tiles run={run} />
      {run.episodes.length || run.state !== "running" ? <section class="charts">
        <RewardFigure run={run} />
        <div class="panel chart bars">
          <Endings run={run} onChoose={(end) => show({ end })} />
          <section>
            <h2>Where the time of an episode goes</h2>
            <div class="lines" />
            <Stages
              times={Object.fromEntries(Object.entries(run.metrics.times).map(([stage, { total }]) => [stage, total]))}
              told={(stage) => `${seconds(run.metrics.times[stage]?.mean ?? 0)} · at most ${seconds(run.metrics.times[stage]?.longest ?? 0)}`}
            />
          </section>
        </div>
      </section> : null}
      <Groups run={run} onChoose={(group) => show({ group })} />
      <Episodes run={run} choice={choice} search={search} />
      <details class="panel facts"><summary>What was run</summary><pre>{pretty(run.config)}</pre></details>
    </>
  );
}

function Title({ run }: { run: Run }) {
  const { config, metrics } = run;
  const policy = policyOf(run);
  return (
    <>
      <div class="title"><h1>{run.name}</h1><StateOf state={run.state} /></div>
      <div class="under">
        <span><b>{policy.name}</b> {policy.more}</span>
        {environmentsOf(run).map((env) => <EnvTag key={env} run={run} env={env} />)}
        <span>{when(metrics.started_at || config.started_at)}</span>
        {config.dataset ? <span>{config.dataset}</span> : null}
        {config.url ? <span>{config.url}</span> : null}
        <span>muxsim {config.muxsim}</span>
      </div>
    </>
  );
}

function Missing({ run: { metrics, state } }: { run: Run }) {
  if (state === "running" && !metrics.problem) {
    return metrics.planned ? <progress max={metrics.planned} value={metrics.episodes} aria-label="Episodes that have ended" /> : null;
  }
  if (state === "complete") return null;
  const missing = metrics.planned === null ? 0 : metrics.planned - metrics.episodes;
  const what = missing > 0 && metrics.planned !== null ? `${many(missing, "episode")} of ${metrics.planned} are not on record.` : "The run has not come to its end.";
  return <Alert title={what}>{metrics.problem ? <pre tabIndex={0}>{metrics.problem}</pre> : null}</Alert>;
}

const MOST_PLAYING = 24;

/** Episodes under way, each with its steps so far. */
function Playing({ run }: { run: Run }) {
  const { playing } = run;
  if (!playing.length) return null;
  return (
    <section class="panel playing" aria-label="Episodes under way">
      <header><h2>Playing now</h2><span class="soft">{many(playing.length, "episode")}</span></header>
      <ul>
        {playing.slice(0, MOST_PLAYING).map((one) => (
          <li key={one.id}>
            <a href={episodeLink(run, one.id)}>{one.id}</a>
            <EnvTag run={run} env={one.env} />
            <span class="soft">{many(one.steps, "step")}</span>
            <Reward value={one.reward} />
          </li>
        ))}
        {playing.length > MOST_PLAYING ? <li class="soft">and {count(playing.length - MOST_PLAYING)} more</li> : null}
      </ul>
    </section>
  );
}

function Endings({ run: { metrics }, onChoose }: { run: Run; onChoose: (end: string) => void }) {
  return (
    <section>
      <h2>How episodes ended</h2>
      <div class="lines" />
      <EndsBar ends={metrics.end_reasons} />
      <div class="lines">
        {Object.entries(metrics.end_reasons).map(([end, times]) => [
          <span key={`${end} dot`} class={`dot ${endKind(end)}`} aria-hidden="true" />,
          <button key={end} type="button" title="Show these" onClick={() => onChoose(end)}>{words(end)}</button>,
          <span key={`${end} count`} class="number">{number(times, 0)} · {share(times, metrics.episodes)}</span>,
        ])}
      </div>
    </section>
  );
}
