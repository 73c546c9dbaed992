import { extent, points, scale } from "../parts/scales.ts";

const WIDTH = 420;
const HEIGHT = 64;

/** The sum of rewards along an episode, with a mark at the frame that is shown. */
export function Rail({ totals, kind, at, onSeek }: { totals: readonly number[]; kind: string; at: number; onSeek: (frame: number) => void }) {
  const [low, high] = extent(totals);
  const flat = low === high;
  const x = scale(0, Math.max(1, totals.length - 1), 4, WIDTH - 4);
  const level = scale(low, high, HEIGHT - 6, 6);
  const y = (value: number): number => (flat ? HEIGHT / 2 : level(value));
  const seek = (event: { clientX: number; currentTarget: SVGSVGElement }): void => {
    const { left, width } = event.currentTarget.getBoundingClientRect();
    onSeek(Math.round(((event.clientX - left) / width) * (totals.length - 1)));
  };
  return (
    <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} class={kind} role="img" aria-label="Sum of rewards" onClick={seek}>
      <rect class="hit" width={WIDTH} height={HEIGHT} />
      {flat || low > 0 || high < 0 ? null : <line class="grid" x1={0} x2={WIDTH} y1={y(0)} y2={y(0)} />}
      <polyline class="rail" points={points(totals, x, y)} />
      <line class="cursor" x1={x(at)} x2={x(at)} y1={0} y2={HEIGHT} />
      <circle class="here" cx={x(at)} cy={y(totals[at] ?? 0)} r={4} />
    </svg>
  );
}
