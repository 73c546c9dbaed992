import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { theme } from "../theme.ts";
import { ceiling, type Rounding, ticks } from "./scales.ts";

/** One line of a chart: its values, null where there is none, and the name of its color's token. */
export interface Line {
  readonly label: string;
  readonly values: readonly (number | null)[];
  readonly color: string;
  /** Whether the ground under it is tinted. */
  readonly filled?: boolean;
}

interface Props {
  /** What is on the way from left to right: seconds since 1970 with `timed`, else plain numbers. */
  readonly xs: readonly number[];
  readonly lines: readonly Line[];
  readonly label: string;
  readonly height?: number;
  readonly timed?: boolean;
  readonly write: (value: number) => string;
  /** Whether zero is always on it. */
  readonly grounded?: boolean;
  /** What is round on the way up. */
  readonly rounding?: Rounding;
  /** The `x` a pointer is at, null when it has left. */
  readonly onPoint?: (index: number | null) => void;
}

/** Lines over time or steps. It is a picture: what it shows is also said beside it, in words. */
export function Chart({ xs, lines, label, height = 68, timed = false, write, grounded = true, rounding = "decimal", onPoint }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const shown = theme.value;
  const kinds = lines.map(({ label: name, color }) => `${name} ${color}`).join();

  useEffect(() => {
    const element = box.current;
    if (!element) return undefined;
    const made = new uPlot(options({ lines, height, timed, write, grounded, rounding, ...(onPoint ? { onPoint } : {}) }, element), data(xs, lines), element);
    plot.current = made;
    const sized = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height }));
    sized.observe(element);
    return () => { sized.disconnect(); made.destroy(); plot.current = null; };
  }, [shown, kinds, height, timed, grounded, rounding]);
  useEffect(() => plot.current?.setData(data(xs, lines)), [xs, lines]);

  return <div ref={box} class="chart-box" role="img" aria-label={label} />;
}

function data(xs: readonly number[], lines: readonly Line[]): uPlot.AlignedData {
  return [[...xs], ...lines.map(({ values }) => [...values])];
}

function options({ lines, height, timed, write, grounded, rounding, onPoint }: Required<Omit<Props, "xs" | "label" | "onPoint">> & Pick<Props, "onPoint">, element: HTMLElement): uPlot.Options {
  const soft = colorOf("--faint", element);
  const grid = { stroke: colorOf("--line", element), width: 1 };
  return {
    width: element.clientWidth,
    height,
    padding: [6, 6, 0, 0],
    legend: { show: false },
    cursor: { y: false, points: { size: 6 }, drag: { setScale: false, x: false } },
    scales: { x: { time: timed, ...(timed ? { range: (_: uPlot, from: number, to: number): [number, number] => [Math.min(from, to - SHORTEST), to] } : {}) }, y: { range: (_, low, high) => ranged(low, high, grounded, rounding) } },
    series: [{}, ...lines.map(({ label, color, filled }) => {
      const stroke = colorOf(color, element);
      return {
        label, stroke, width: 1.5, spanGaps: false,
        points: { show: true, size: 4, fill: stroke, filter: (plot: uPlot, series: number) => lonely(plot.data[series] ?? []) },
        ...(filled ? { fill: faded(stroke) } : {}),
      };
    })],
    axes: [
      { stroke: soft, grid: { show: false }, ticks: { show: false }, size: 20, gap: 2, font: FONT, space: 46,
        ...(timed ? { values: (_: uPlot, ticks: number[]) => ticks.map(hour) } : {}) },
      { stroke: soft, grid, ticks: { show: false }, size: 52, gap: 4, font: FONT, values: (_, places) => places.map(write),
        splits: (_, __, low, high) => (low === 0 ? [0, high / 2, high] : ticks(low, high, Math.max(3, Math.floor(height / 28)))) },
    ],
    hooks: onPoint ? { setCursor: [(plot) => onPoint(plot.cursor.idx ?? null)] } : {},
  };
}

/** The places of values that no line leads to: one sees them as points, or not at all. */
export function lonely(values: ArrayLike<number | null | undefined>): number[] {
  const there = (place: number): boolean => typeof values[place] === "number";
  return Array.from(values, (_, place) => place).filter((place) => there(place) && !there(place - 1) && !there(place + 1));
}

// So many seconds are always on the way from left to right.
const SHORTEST = 300;
const FONT = "11px system-ui, sans-serif";

function hour(time: number): string {
  return new Date(time * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
}

/** A scale that is no line: a value that never changes is in its middle, or on its ground. */
function ranged(low: number | null, high: number | null, grounded: boolean, rounding: Rounding): [number, number] {
  const [from, to] = [low ?? 0, high ?? 1];
  if (grounded && from >= 0) return [0, ceiling(to, rounding)];
  const room = (to - from || 1) * 0.08;
  return [from - room, to + room];
}

/** What a token is here and now; canvases know no variables. */
export function colorOf(token: string, element: HTMLElement): string {
  const probe = document.createElement("span");
  probe.style.color = `var(${token})`;
  element.append(probe);
  const color = getComputedStyle(probe).color;
  probe.remove();
  return color;
}

function faded(color: string): string {
  return color.replace(/^rgb\(([^)]*)\)$/, "rgba($1, 0.12)");
}
