import { many, number } from "../numbers.ts";
import { environmentsOf, type Episode, isScored, type Run } from "./data.ts";
import { memo } from "./memo.ts";
import { open } from "./places.ts";
import { extent, scale, ticks } from "../parts/scales.ts";
import { tip } from "./tip.tsx";
import { useWidth } from "./width.ts";
import { about, colorOf, EnvTag } from "./words.tsx";

const LEFT = 46;
const GAP = 14;
// Pixels, of which those of the picture are; below this it has less beside the points, and says less.
const WIDE = 480;
const FIRST_WIDTH = 700;

interface Picture {
  readonly run: Run;
  readonly env: string;
  readonly width: number;
  readonly height: number;
  readonly last: boolean;
}

/** Rewards over the run: one picture for each environment, since theirs have nothing in common but the name. */
export const RewardFigure = memo(function RewardFigure({ run }: { run: Run }) {
  const envs = environmentsOf(run);
  const { metrics } = run;
  const [box, width] = useWidth<HTMLElement>(FIRST_WIDTH, LEFT * 4);
  const height = envs.length === 1 ? 282 : Math.max(104, 320 / envs.length);
  return (
    <figure ref={box} class="panel chart">
      <header>
        <h2>Reward</h2>
        <div class="legend">
          <span>— running mean</span>
          {metrics.episodes > metrics.scored ? <span><span class="negative">✕</span> without a reward</span> : null}
        </div>
      </header>
      {envs.map((env, index) => {
        const summary = metrics.environments[env];
        const last = index === envs.length - 1;
        const mean = summary?.mean_reward === null || summary?.mean_reward === undefined
          ? "no episode is scored" : `mean ${number(summary.mean_reward)}, median ${number(summary.median_reward ?? 0)}`;
        return [
          <div key={`${env} legend`} class="legend"><EnvTag run={run} env={env} /><span>{many(summary?.episodes ?? 0, "episode")}, {mean}</span></div>,
          <Rewards key={env} run={run} env={env} last={last} width={width} height={last ? height + 18 : height} />,
        ];
      })}
    </figure>
  );
});

function Rewards({ run, env, width, height, last }: Picture) {
  const right = width - GAP - (width < WIDE ? 56 : 100);
  const mine = run.episodes.filter((one) => one.env === env);
  const scored = mine.filter(isScored);
  const bottom = height - (last ? 22 : 4);
  let [low, high] = scored.length ? extent(scored.map((one) => one.reward)) : [0, 1];
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const many = run.episodes.length;
  const x = scale(0, Math.max(1, many - 1), LEFT + 8, right - 6);
  const y = scale(low, high, bottom - 16, 10);
  const radius = many > 400 ? 2 : many > 120 ? 3 : 4;
  return (
    <svg viewBox={`0 0 ${width} ${height}`} class={colorOf(run, env)} role="img" aria-label={`Rewards of ${env} over the run`}>
      {ticks(low, high, height > 200 ? 5 : 4).map((tick) => [
        <line key={`line ${tick}`} class="grid" x1={LEFT} x2={width} y1={y(tick)} y2={y(tick)} />,
        <text key={tick} x={LEFT - 8} y={y(tick) + 4} text-anchor="end">{number(tick)}</text>,
      ])}
      {mine.map((one) => isScored(one)
        ? <circle key={one.index} class="point" cx={x(one.index)} cy={y(one.reward)} r={radius} onClick={() => open(run, one.id)} {...tip(about(one))} />
        : <path key={one.index} class="cross" d={`M${x(one.index) - 3} ${bottom - 5}l6 6m0 -6l-6 6`} onClick={() => open(run, one.id)} {...tip(about(one))} />)}
      <Trend scored={scored} x={x} y={y} />
      <Histogram rewards={scored.map((one) => one.reward)} low={low} high={high} y={y} left={right + GAP} right={width} />
      {last ? (
        <>
          <text x={x(0)} y={height - 3}>1</text>
          <text x={x(Math.max(1, many - 1))} y={height - 3} text-anchor="end">{many}</text>
          <text x={(LEFT + right) / 2} y={height - 3} text-anchor="middle">{width < WIDE ? "episodes" : "episodes, in the order in which they ended"}</text>
          <text x={right + GAP} y={height - 3}>{width < WIDE ? "" : "distribution"}</text>
        </>
      ) : null}
    </svg>
  );
}

/** The mean over a window around each episode. */
function Trend({ scored, x, y }: { scored: readonly (Episode & { reward: number })[]; x: (at: number) => number; y: (value: number) => number }) {
  if (scored.length <= 4) return null;
  const reach = Math.max(2, Math.round(scored.length / 24));
  const sums = [0];
  for (const one of scored) sums.push((sums.at(-1) ?? 0) + one.reward);
  const points = scored.map((one, index) => {
    const [from, to] = [Math.max(0, index - reach), Math.min(scored.length, index + reach + 1)];
    const mean = ((sums[to] ?? 0) - (sums[from] ?? 0)) / (to - from);
    return `${x(one.index).toFixed(1)},${y(mean).toFixed(1)}`;
  });
  return <polyline class="trend" points={points.join(" ")} />;
}

function Histogram({ rewards, low, high, y, left, right }: { rewards: readonly number[]; low: number; high: number; y: (value: number) => number; left: number; right: number }) {
  const count = Math.min(16, Math.max(8, Math.round(Math.sqrt(rewards.length))));
  const bins = Array<number>(count).fill(0);
  for (const reward of rewards) {
    const bin = Math.min(count - 1, Math.floor(((reward - low) / (high - low)) * count));
    bins[bin] = (bins[bin] ?? 0) + 1;
  }
  const wide = scale(0, extent(bins)[1], 0, right - left);
  const height = Math.abs(y(high) - y(low)) / count;
  const edge = (index: number): string => number(low + ((high - low) * index) / count);
  return (
    <>
      {bins.map((held, index) => held ? (
        <rect
          key={index} class="column" x={left} width={Math.max(2, wide(held))} rx={2}
          y={y(low) - height * (index + 1) + 1} height={Math.max(1, height - 2)}
          {...tip(`${many(held, "episode")} from ${edge(index)} to ${edge(index + 1)}`)}
        />
      ) : null)}
    </>
  );
}
