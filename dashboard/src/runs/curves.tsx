import { number, percent } from "../numbers.ts";
import { course, type Point, scoredIn, sharedEnvironments, shares, stretch } from "./courses.ts";
import type { Run } from "./data.ts";
import { memo } from "./memo.ts";
import { extent, scale, ticks } from "../parts/scales.ts";
import { useWidth } from "./width.ts";

const LEFT = 46;
const HEIGHT = 220;
const BOTTOM = HEIGHT - 24;
// Pixels; below this there is room for the first words only.
const WIDE = 420;

interface Line {
  readonly name: string;
  readonly color: string;
  readonly points: readonly Point[];
}

/** The rewards of runs as curves, of each environment that several have played. */
export const Curves = memo(function Curves({ runs }: { runs: readonly Run[] }) {
  return <>{sharedEnvironments(runs).map((env) => <OfEnvironment key={env} env={env} runs={runs} />)}</>;
});

function OfEnvironment({ env, runs }: { env: string; runs: readonly Run[] }) {
  const played = runs.map((run, index) => ({ name: run.name, color: `k${index % 6}`, all: run.episodes.filter((one) => one.env === env).length, scored: scoredIn(run, env) }));
  const scored = played.flatMap((one) => one.scored);
  const steps = extent(scored.map((one) => one.steps))[1];
  const [low, high] = stretch(scored);
  const along = played.map(({ scored: mine, ...run }) => ({ ...run, points: course(mine, steps) }));
  const known = along.every(({ points }, index) => points.length > 1 || !played[index]?.scored.length);
  return (
    <section class="curves" aria-label={`Rewards in ${env}`}>
      <div class="legend">
        <b>{env}</b>
        {played.map(({ name, color, all, scored: mine }) => (
          <span key={name}><span class={`dot ${color}`} aria-hidden="true" />{name}: {mine.length < all ? `${mine.length} of ${all} episodes have a reward` : `${all} episodes`}</span>
        ))}
      </div>
      {known ? <Picture title="Reward along an episode" of="steps; who has ended keeps what it has" lines={along} x={[0, steps]} y={extent(along.flatMap(({ points }) => points.map(({ y }) => y)))} write={number} /> : null}
      <Picture
        title="Episodes that earned as much or more" of="reward" x={[low, high]} y={[0, 1]} write={percent}
        lines={played.map(({ name, color, scored: mine }) => ({ name, color, points: shares(mine, low, high) }))}
      />
    </section>
  );
}

function Picture({ title, of, lines, x: [left, right], y: [low, high], write }: {
  title: string; of: string; lines: readonly Line[]; x: readonly [number, number]; y: readonly [number, number]; write: (value: number) => string;
}) {
  const [box, width] = useWidth<HTMLElement>(520, LEFT * 4);
  const flat = low === high;
  const [least, most] = flat ? [low - 0.5, high + 0.5] : [low, high];
  const x = scale(left, right, LEFT, width - 8);
  const y = scale(least, most, BOTTOM - 4, 10);
  return (
    <figure ref={box} class="panel chart">
      <header><h2>{title}</h2></header>
      <svg viewBox={`0 0 ${width} ${HEIGHT}`} role="img" aria-label={title}>
        {ticks(least, most, 5).map((tick) => [
          <line key={`line ${tick}`} class="grid" x1={LEFT} x2={width} y1={y(tick)} y2={y(tick)} />,
          <text key={tick} x={LEFT - 8} y={y(tick) + 4} text-anchor="end">{write(tick)}</text>,
        ])}
        {lines.filter(({ points }) => points.length > 1).map(({ name, color, points }) => (
          <polyline key={name} class={`course ${color}`} points={points.map((point) => `${x(point.x).toFixed(1)},${y(point.y).toFixed(1)}`).join(" ")} />
        ))}
        <text x={LEFT} y={HEIGHT - 4}>{number(left)}</text>
        <text x={(LEFT + width) / 2} y={HEIGHT - 4} text-anchor="middle">{width < WIDE ? of.split(";")[0] : of}</text>
        <text x={width - 8} y={HEIGHT - 4} text-anchor="end">{number(right)}</text>
      </svg>
    </figure>
  );
}
