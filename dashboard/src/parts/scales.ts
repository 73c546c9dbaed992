/** From a stretch of numbers to one of a picture. */
export function scale(from: number, to: number, low: number, high: number): (value: number) => number {
  return (value) => low + ((value - from) / (to - from || 1)) * (high - low);
}

/** About so many round numbers between two others. */
export function ticks(low: number, high: number, about: number): number[] {
  const rough = (high - low) / (about - 1) || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 2.5, 5, 10].find((one) => one * power >= rough) ?? 10) * power;
  const found = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-6; tick += step) found.push(Math.round(tick / step) * step);
  return found;
}

/** The least and the greatest, of as many as there are: arguments of a call have an end. */
export function extent(values: Iterable<number>): [number, number] {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

/** The points of a line, of values one beside the other. */
export function points(values: readonly number[], x: (at: number) => number, y: (value: number) => number): string {
  return values.map((value, index) => `${x(index).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
}

/** What is round: decimal numbers, those whose half is a whole one, or sizes in bytes. */
export type Rounding = "decimal" | "whole" | "bytes";

const DECIMAL = [1, 2, 4, 6, 8, 10] as const;
const BINARY = [1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024] as const;

/** The least number from `value` on that is round, and so is its half: the top of a scale of three lines. */
export function ceiling(value: number, rounding: Rounding): number {
  if (!(value > 0)) return rounding === "decimal" ? 1 : 2;
  const base = rounding === "bytes" ? 1024 : 10;
  const unit = base ** Math.floor(Math.log(value) / Math.log(base) + 1e-9);
  const top = ((rounding === "bytes" ? BINARY : DECIMAL).find((step) => step * unit >= value) ?? base) * unit;
  return rounding === "decimal" ? top : Math.max(2, top);
}
