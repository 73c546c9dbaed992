import type { ComponentChildren } from "preact";
import { compact, count, number, percent, seconds } from "../numbers.ts";
import { environmentsOf, type Metrics, type Run } from "./data.ts";
import { colorOf, within } from "./words.tsx";

function Tile({ name, value, children }: { name: string; value: ComponentChildren; children?: ComponentChildren }) {
  return (
    <div class="panel tile">
      <div class="name">{name}</div>
      <div class="value">{value}</div>
      <div class="more">{children}</div>
    </div>
  );
}

function MeanRewards({ run }: { run: Run }) {
  const { metrics } = run;
  return (
    <Tile
      name="Mean reward"
      value={<div class="lines">{environmentsOf(run).map((env) => {
        const summary = metrics.environments[env];
        return [
          <span key={`${env} dot`} class={`dot ${colorOf(run, env)}`} aria-hidden="true" />,
          <span key={env}>{env}</span>,
          <span key={`${env} mean`} class="number" title={within(summary?.mean_interval ?? null)}>{summary?.mean_reward === null || summary === undefined ? "–" : number(summary.mean_reward)}</span>,
        ];
      })}</div>}
    />
  );
}

function MeanReward({ metrics }: { metrics: Metrics }) {
  const { mean_reward: mean, median_reward: median, min_reward: least, max_reward: most } = metrics;
  if (mean === null) return <Tile name="Mean reward" value="–">no episode is scored</Tile>;
  const fewer = metrics.scored < metrics.episodes ? ` over ${metrics.scored} of ${metrics.episodes}` : "";
  return (
    <Tile name="Mean reward" value={number(mean)}>
      {metrics.mean_interval ? `95 %: ${within(metrics.mean_interval)}` : null}{fewer}
      <div>median {number(median ?? 0)}, {number(least ?? 0)} to {number(most ?? 0)}</div>
    </Tile>
  );
}

/** The figures of a run, one beside the other. */
export function Tiles({ run }: { run: Run }) {
  const { metrics } = run;
  const failed = metrics.episodes - metrics.valid;
  const several = Object.entries(metrics.pass_at_k).filter(([k]) => k !== "1");
  const tokens = metrics.usage.total_tokens;
  return (
    <section class="tiles" aria-label="Figures">
      <Tile name="Episodes" value={count(metrics.episodes)}>
        {failed ? <span class="negative">{failed} failed, {metrics.valid} valid</span> : metrics.episodes ? "all valid" : ""}
        {run.state === "running" && metrics.planned ? <div>so far, of {count(metrics.planned)}</div> : null}
      </Tile>
      {environmentsOf(run).length > 1 ? <MeanRewards run={run} /> : <MeanReward metrics={metrics} />}
      {metrics.success_rate === null ? null : (
        <Tile name="Success" value={percent(metrics.success_rate)}>
          {metrics.success_interval ? `95 %: ${within(metrics.success_interval, percent)}` : null}
          <div>{several.map(([k, { value }]) => `pass@${k} ${percent(value)}`).join(", ")}</div>
        </Tile>
      )}
      <Tile name="Steps" value={count(metrics.steps)}>
        {metrics.episodes ? `${number(metrics.steps / metrics.episodes, 1)} per episode` : null}
      </Tile>
      <Tile name="Steps per second" value={metrics.steps_per_second === null ? "–" : number(metrics.steps_per_second, 1)}>
        over {seconds(metrics.seconds)}
      </Tile>
      {tokens ? <Tile name="Tokens" value={compact(tokens)}>{compact(metrics.usage.completion_tokens)} written</Tile> : null}
    </section>
  );
}
