/** How numbers, times and sizes are written, everywhere. */

const trim = (text: string): string => text.replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
const minus = (text: string): string => text.replaceAll("-", "−");

export function number(value: number, digits = Math.abs(value) < 100 ? 3 : 1): string {
  const extreme = Math.abs(value) >= 1e6 || (value !== 0 && Math.abs(value) < 0.001);
  return minus(extreme ? value.toExponential(2) : trim(value.toFixed(digits)));
}

export function signed(value: number): string {
  return (value > 0 ? "+" : "") + number(value);
}

export function count(value: number): string {
  return value.toLocaleString("en");
}

export function many(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}

/** Few characters for a large count: 12.3k, 4.5M. */
export function compact(value: number): string {
  if (value < 10_000) return count(value);
  return value < 1e6 ? `${trim((value / 1e3).toFixed(1))}k` : `${trim((value / 1e6).toFixed(1))}M`;
}

export function percent(value: number): string {
  return `${trim((100 * value).toFixed(1))} %`;
}

export function seconds(value: number): string {
  if (value < 0.001) return value > 0 ? "<1 ms" : "0 s";
  if (value < 1) return `${trim((value * 1000).toFixed(value < 0.01 ? 1 : 0))} ms`;
  if (value < 120) return `${trim(value.toFixed(value < 10 ? 2 : 1))} s`;
  if (value < 7200) return `${trim((value / 60).toFixed(1))} min`;
  if (value < 172_800) return `${trim((value / 3600).toFixed(1))} h`;
  return `${trim((value / 86_400).toFixed(1))} d`;
}

const SIZES = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

export function bytes(value: number): string {
  const power = Math.min(SIZES.length - 1, value < 1 ? 0 : Math.floor(Math.log2(value) / 10));
  const scaled = value / 1024 ** power;
  return `${trim(scaled.toFixed(scaled < 10 && power > 0 ? 1 : 0))} ${SIZES[power] ?? ""}`;
}

/** The words of a name like `idle_timeout`. */
export function words(name: string): string {
  return name.replaceAll("_", " ");
}
