import { compact, many, number, percent, seconds, signed, words } from "../numbers.ts";
import { Alert } from "../parts/basics.tsx";
import type { Change, RunComparison, RunDifference } from "./comparison.ts";
import type { Run } from "./data.ts";
import { differenceLink } from "./places.ts";
import { extent, scale } from "../parts/scales.ts";
import { within } from "./words.tsx";

const TITLES: Readonly<Record<string, string>> = { seconds: "time" };
const WRITTEN: Readonly<Record<string, (value: number) => string>> = { success: percent, valid: percent, seconds, tokens: (value) => compact(Math.round(value)) };
/** Of these more is better; of the others that is for the reader to say. */
const BETTER: ReadonlySet<string> = new Set(["reward", "success", "valid"]);
const LEAST_CHANCE = 0.0001;

/** What a comparison has found: each run against the first. */
export function Compared({ comparison, runs }: { comparison: RunComparison; runs: readonly Run[] }) {
  const [first, ...others] = runs;
  return (
    <>
      {comparison.notes.map((note) => <Alert key={note} mild title={note} />)}
      {comparison.differences.map((difference, index) => {
        const other = others[index];
        return <Against key={difference.second} difference={difference} link={first && other ? differenceLink(first, other) : null} />;
      })}
    </>
  );
}

function Against({ difference, link }: { difference: RunDifference; link: string | null }) {
  const { first, second, pairs, paired_by, figures, ends, differs, notes } = difference;
  return (
    <section class="panel against" aria-label={`${second} against ${first}`}>
      <header>
        <h2>{second} against {first}</h2>
        <span class="soft">{many(pairs, "pair")} by {paired_by}</span><span class="grow" />
        {link ? <a class="button" href={link}>Row by row</a> : null}
      </header>
      {differs.length ? (
        <div class="differs" role="note"><b>More than the policy differs</b>, from the first to the second:<ul>{differs.map((line) => <li key={line}>{line}</li>)}</ul></div>
      ) : null}
      <div class="scroll" tabIndex={0} role="region" aria-label="Figures of the pairs">
        <table class="still">
          <thead>
            <tr>
              <th scope="col"><span class="plain">Mean</span></th>
              {[first, second].map((name) => <th key={name} scope="col" class="number"><span class="plain of-run" title={name}>{name}</span></th>)}
              <th scope="col" class="number"><span class="plain">Difference</span></th>
              <th scope="col"><span class="plain">95 %</span></th>
              <th scope="col"><span class="plain">More · same · less</span></th>
              <th scope="col" class="number"><span class="plain">Sign test</span></th>
            </tr>
          </thead>
          <tbody>
            {Object.entries(figures).map(([name, change]) => <Line key={name} name={TITLES[name] ?? name} write={WRITTEN[name]} change={change} judged={BETTER.has(name)} of={pairs} />)}
            {Object.entries(ends).map(([name, change]) => <Line key={`end ${name}`} name={words(name)} write={percent} change={change} judged={false} of={pairs} />)}
          </tbody>
        </table>
      </div>
      {notes.length ? <ul class="notes">{notes.map((note) => <li key={note}>{note}</li>)}</ul> : null}
    </section>
  );
}

function Line({ name, write = number, change, judged, of }: {
  name: string; write: ((value: number) => string) | undefined; change: Change; judged: boolean; of: number;
}) {
  const { first, second, difference, interval, pairs, sign_test: chance } = change;
  const sure = interval !== null && (interval[0] > 0 || interval[1] < 0);
  const mood = !judged || !sure ? "" : difference > 0 ? "positive" : "negative";
  return (
    <tr>
      <th scope="row">{name}{pairs < of ? <span class="soft"> over {pairs} of {of}</span> : null}</th>
      <td class="number">{write(first)}</td>
      <td class="number">{write(second)}</td>
      <td class={`number strong ${mood}`}>{gap(difference, write)}</td>
      <td><Reach change={change} told={within(interval, (value) => gap(value, write))} /></td>
      <td><Split change={change} /></td>
      <td class="number">{chance === null ? "–" : chance < LEAST_CHANCE ? `p < ${LEAST_CHANCE}` : `p ${Number(chance.toPrecision(2))}`}</td>
    </tr>
  );
}

/** A difference of values that are written like that, with its sign. */
function gap(value: number, write: (value: number) => string): string {
  if (write === number) return signed(value);
  return value === 0 ? write(0) : `${value > 0 ? "+" : "−"}${write(Math.abs(value))}`;
}

const WIDTH = 150;
const HEIGHT = 16;

/** Where the difference may lie, beside nothing at all. */
function Reach({ change: { difference, interval }, told }: { change: Change; told: string }) {
  if (!interval) return <span class="soft">one pair only</span>;
  const [low, high] = extent([0, difference, ...interval]);
  if (low === high) return <span class="soft">no difference</span>;
  const x = scale(low, high, 5, WIDTH - 5);
  return (
    <span class="reaches">
      <svg class="mean" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} aria-hidden="true">
        <line class="grid" x1={x(0)} x2={x(0)} y1={0} y2={HEIGHT} />
        <line class="reach" x1={x(interval[0])} x2={x(interval[1])} y1={HEIGHT / 2} y2={HEIGHT / 2} />
        <circle class="here" cx={x(difference)} cy={HEIGHT / 2} r={4} />
      </svg>
      <span class="soft">{told}</span>
    </span>
  );
}

/** In how many pairs there is more of it, the same and less. */
function Split({ change: { more, same, less } }: { change: Change }) {
  return <span class="soft">{more} · {same} · {less}</span>;
}
