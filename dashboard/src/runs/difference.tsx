import { useMemo, useState } from "preact/hooks";
import { compact, many, number, seconds, signed, words } from "../numbers.ts";
import { Alert, Empty } from "../parts/basics.tsx";
import { ROWS_AT_ONCE } from "./choice.ts";
import type { Run } from "./data.ts";
import { compared, type Comparison, type Half, type Pair } from "./pairs.ts";
import { differenceLink, episodeLink, runLink } from "./places.ts";
import { extent, scale } from "../parts/scales.ts";
import { tip } from "./tip.tsx";
import { Top } from "./top.tsx";
import { End, EnvTag, Reward, StateOf } from "./words.tsx";

const SHOWN = {
  different: "that differ", better: "that earned more", worse: "that earned less", all: "all rows", alone: "in one run only",
} as const;
type Kind = keyof typeof SHOWN;

/** Two runs, row by row: what `other` did otherwise than `one`. */
export function Difference({ one, other }: { one: Run; other: Run }) {
  const comparison = useMemo(() => compared(one.episodes, other.episodes), [one.episodes, other.episodes]);
  return (
    <>
      <Top><a class="button" href="#/">← All runs</a><a class="button" href={differenceLink(other, one)}>⇄ The other way round</a></Top>
      <div class="title"><h1>The difference of two runs</h1></div>
      <div class="under">
        <span>from <a href={runLink(one)}>{one.name}</a> <StateOf state={one.state} /></span>
        <span>to <a href={runLink(other)}>{other.name}</a> <StateOf state={other.state} /></span>
      </div>
      {comparison.bySeed ? <Alert mild title="These runs have no row in common: environments and seeds are compared" /> : null}
      <Figures comparison={comparison} />
      <Bars comparison={comparison} />
      <Rows one={one} other={other} comparison={comparison} />
    </>
  );
}

function Figures({ comparison: { pairs, better, same, worse, mean, margin } }: { comparison: Comparison }) {
  const together = pairs.filter((pair) => pair.one && pair.other).length;
  const tiles = [
    ["Rows in both", String(together), pairs.length > together ? `${pairs.length - together} in one run only` : "and none in only one"],
    ["Mean difference", mean === null ? "–" : signed(mean), margin === null || mean === null ? "of the reward" : `95 %: ${number(mean - margin)} to ${number(mean + margin)}`],
    ["Earned more", String(better), "rows"],
    ["Earned the same", String(same), "rows"],
    ["Earned less", String(worse), "rows"],
  ] as const;
  return (
    <section class="tiles" aria-label="Figures">
      {tiles.map(([name, value, more]) => (
        <div key={name} class="panel tile"><div class="name">{name}</div><div class="value">{value}</div><div class="more">{more}</div></div>
      ))}
    </section>
  );
}

const WIDTH = 1000;
const HEIGHT = 150;

/** The differences, from the worst to the best. */
function Bars({ comparison: { pairs } }: { comparison: Comparison }) {
  const known = pairs.filter((pair): pair is Pair & { difference: number } => pair.difference !== null)
    .sort((a, b) => a.difference - b.difference);
  const [low, high] = extent(known.map(({ difference }) => difference));
  if (!known.length || (low === 0 && high === 0)) return null;
  const y = scale(Math.min(0, low), Math.max(0, high), HEIGHT - 8, 8);
  const width = WIDTH / known.length;
  return (
    <figure class="panel chart">
      <header><h2>Difference of the reward, row by row</h2><div class="legend">from the one that lost most to the one that gained most</div></header>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} class="differences" preserveAspectRatio="none" role="img" aria-label={`Differences from ${number(low)} to ${number(high)}`}>
        <line class="grid" x1={0} x2={WIDTH} y1={y(0)} y2={y(0)} />
        {known.map(({ key, row, difference }, index) => (
          <rect
            key={key} class={difference < 0 ? "less" : difference > 0 ? "more" : "same"} x={index * width + width * 0.08} width={Math.max(0.8, width * 0.84)}
            y={Math.min(y(0), y(difference))} height={Math.max(1, Math.abs(y(difference) - y(0)))} {...tip(`${row}\n${signed(difference)}`)}
          />
        ))}
      </svg>
    </figure>
  );
}

function isShown(pair: Pair, kind: Kind): boolean {
  const { one, other, difference } = pair;
  if (kind === "all") return true;
  if (kind === "alone") return !one || !other;
  if (kind === "better") return difference !== null && difference > 0;
  if (kind === "worse") return difference !== null && difference < 0;
  return !one || !other || difference === null ? one?.reward !== other?.reward : difference !== 0 || one.ends.join() !== other.ends.join();
}

function Rows({ one, other, comparison: { pairs } }: { one: Run; other: Run; comparison: Comparison }) {
  const [kind, setKind] = useState<Kind>("different");
  const [most, setMost] = useState(ROWS_AT_ONCE);
  const list = pairs.filter((pair) => isShown(pair, kind)).sort((a, b) => weight(b) - weight(a));
  return (
    <section class="panel" aria-label="Rows">
      <div class="tools">
        <h2>Rows</h2><span class="count" role="status">{list.length} of {many(pairs.length, "row")}</span><span class="grow" />
        <select class="field" aria-label="Which rows" value={kind} onChange={(event) => setKind(event.currentTarget.value as Kind)}>
          {Object.entries(SHOWN).map(([name, text]) => <option key={name} value={name}>{text}</option>)}
        </select>
      </div>
      {list.length ? (
        <div class="scroll" tabIndex={0} role="region" aria-label="All rows">
          <table class="still">
            <thead>
              <tr>
                {["Row", "Environment"].map((name) => <th key={name} scope="col"><span class="plain">{name}</span></th>)}
                <th scope="col" class="number"><span class="plain">Seed</span></th>
                {[one, other].map((run) => <th key={run.key} scope="col" class="number"><span class="plain of-run" title={`Reward in ${run.name}`}>{run.name}</span></th>)}
                <th scope="col" class="number"><span class="plain">Difference</span></th>
                {["End", "Steps", "Tokens", "Time"].map((name) => <th key={name} scope="col"><span class="plain">{name}</span></th>)}
              </tr>
            </thead>
            <tbody>{list.slice(0, most).map((pair) => <Line key={pair.key} one={one} other={other} pair={pair} />)}</tbody>
          </table>
        </div>
      ) : <Empty>No row is like that.</Empty>}
      {list.length > most ? <div class="empty"><button type="button" class="button" onClick={() => setMost(most + ROWS_AT_ONCE)}>Show more of {list.length}</button></div> : null}
    </section>
  );
}

/** What differs most comes first; what cannot be compared is in the middle. */
function weight({ difference }: Pair): number {
  return difference === null ? Number.MIN_VALUE : Math.abs(difference);
}

function Line({ one, other, pair }: { one: Run; other: Run; pair: Pair }) {
  const { row, env, seed, difference } = pair;
  const both = (write: (half: Half) => string) => <Change from={pair.one && write(pair.one)} to={pair.other && write(pair.other)} />;
  return (
    <tr>
      <td class="name" title={row}>{row}</td>
      <td><EnvTag run={one} env={env} /></td>
      <td class="number">{seed}</td>
      <td class="number"><Ended run={one} half={pair.one} /></td>
      <td class="number"><Ended run={other} half={pair.other} /></td>
      <td class="number strong">{difference === null ? "–" : <Reward value={difference} sign />}</td>
      <td><span class="ends">{pair.one?.ends.join() === pair.other?.ends.join() ? <Ends half={pair.one} /> : <><Ends half={pair.one} /> → <Ends half={pair.other} /></>}</span></td>
      <td>{both(({ steps }) => (steps === null ? "–" : number(steps, 1)))}</td>
      <td>{both(({ tokens }) => (tokens === null ? "–" : compact(Math.round(tokens))))}</td>
      <td>{both((half) => (half.seconds === null ? "–" : seconds(half.seconds)))}</td>
    </tr>
  );
}

function Ends({ half }: { half: Half | null }) {
  if (!half) return <span class="none">not played</span>;
  return <>{half.ends.map((end) => <End key={end} end={end === "playing" ? null : end} />)}</>;
}

/** The reward, as the link to the episode; of several episodes the first. */
function Ended({ run, half }: { run: Run; half: Half | null }) {
  const [first] = half?.episodes ?? [];
  if (!half || !first) return <span class="none">–</span>;
  const several = half.episodes.length > 1 ? `mean of ${half.scored < half.episodes.length ? `${half.scored} of ` : ""}${half.episodes.length}, to the first` : words(first.end ?? "");
  return <a href={episodeLink(run, first.id)} title={`${run.name}: ${several}`}>{half.reward === null ? "none" : number(half.reward)}</a>;
}

function Change({ from, to }: { from: string | null; to: string | null }) {
  return <>{(from ?? "–") === (to ?? "–") ? from ?? "–" : `${from ?? "–"} → ${to ?? "–"}`}</>;
}
