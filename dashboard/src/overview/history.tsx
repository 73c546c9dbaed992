import type { ComponentChildren } from "preact";
import type { Sample } from "../feed.ts";
import { server } from "../live/server.ts";
import { bytes, compact, number, seconds } from "../numbers.ts";
import { Chart, type Line } from "../parts/chart.tsx";
import type { Rounding } from "../parts/scales.ts";

type Figure = Exclude<keyof Sample, "time">;

interface Wish {
  readonly title: string;
  readonly unit?: string;
  readonly write: (value: number) => string;
  readonly rounding?: Rounding;
  readonly of: readonly (readonly [Figure, string, string])[];
}

const rate = (value: number): string => (value >= 100 ? compact(Math.round(value)) : number(value, value < 10 ? 2 : 1));

const WISHES: readonly Wish[] = [
  { title: "Sessions", write: compact, rounding: "whole", of: [["sessions", "", "--accent"]] },
  { title: "Opens", unit: "/s", write: rate, of: [["opens", "", "--c2"]] },
  { title: "Calls", unit: "/s", write: rate, of: [["calls", "", "--accent"]] },
  { title: "Errors", unit: "/s", write: rate, of: [["errors", "", "--bad"]] },
  { title: "Start", write: seconds, of: [["start_p50", "p50", "--c2"], ["start_p99", "p99", "--c1"]] },
  { title: "Call", write: seconds, of: [["call_p50", "p50", "--accent"], ["call_p99", "p99", "--c1"]] },
  { title: "Queue", write: compact, rounding: "whole", of: [["queue", "", "--warn"]] },
  { title: "Memory", write: bytes, rounding: "bytes", of: [["memory", "", "--c5"]] },
];

/** The last hour in small charts, each with what it is now. */
export function History() {
  const history = server.history.value;
  return (
    <section aria-labelledby="history" class="history">
      <h2 id="history" class="over">Last hour</h2>
      <div class="charts">{WISHES.map((wish) => <Small key={wish.title} wish={wish} history={history} />)}</div>
    </section>
  );
}

function Small({ wish, history }: { wish: Wish; history: readonly Sample[] }) {
  const { title, unit = "", write, rounding = "decimal", of } = wish;
  const now = of.map(([figure, name]) => [name, lastOf(history, figure)] as const);
  const spoken = now.map(([name, value]) => `${name} ${value === null ? "none" : write(value) + unit}`).join(", ");
  return (
    <figure class="panel small">
      <figcaption><h3>{title}</h3>
        <span class="now">{now.map(([name, value], place) => (
          <span key={name}><Key name={name} color={of[place]?.[2] ?? ""} />{value === null ? "–" : write(value)}<small>{value === null ? "" : unit}</small></span>
        ))}</span>
      </figcaption>
      {now.every(([, value]) => value === null) ? <p class="soft wait">{history.length === 0 ? "The first comes within 10 s." : "Nothing yet."}</p> : (
        <Chart
          xs={history.map(({ time }) => time)} timed write={write} rounding={rounding} label={`${title} of the last hour; now ${spoken}`}
          lines={of.map(([figure, name, color]): Line => ({ label: name || title, color, filled: of.length === 1, values: history.map((one) => one[figure]) }))}
        />
      )}
    </figure>
  );
}

function Key({ name, color }: { name: string; color: string }): ComponentChildren {
  return name ? <span class="key"><span class="dash" style={{ background: `var(${color})` }} aria-hidden="true" />{name}</span> : null;
}

/** What it is now; of times, what it was when there was one. */
function lastOf(history: readonly Sample[], figure: Figure): number | null {
  return history.findLast((one) => one[figure] !== null)?.[figure] ?? null;
}
