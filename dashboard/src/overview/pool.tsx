import { useComputed, useSignal } from "@preact/signals";
import { Empty, Panel } from "../parts/basics.tsx";
import { server } from "../live/server.ts";
import { count } from "../numbers.ts";
import { go } from "../route.ts";
import { ALL, type Filter, type Kind, KINDS, kindOf, matches, MEANINGS } from "./cells.ts";
import { Square } from "./square.tsx";
import { Squares } from "./squares.tsx";
import { Summary } from "./summary.tsx";
import { SessionTable } from "./table.tsx";

/** All sessions: squares, or a table of the same, or numbers where there are too many. */
export function Pool() {
  const filter = useSignal<Filter>(ALL);
  const listed = useSignal(false);
  const rows = useComputed(() => server.rows());
  // Those that go on stay together, wherever those that are over had been.
  const shown = useComputed(() => rows.value.filter((row) => matches(row, filter.value))
    .sort((one, other) => Number(one.state === "ended") - Number(other.state === "ended")));
  const live = useComputed(() => rows.value.filter(({ state }) => state !== "ended").length);
  const { text, env, kind } = filter.value;
  const counted = server.counts.value;
  const change = (more: Partial<Filter>) => { filter.value = { ...filter.value, ...more }; };
  const filtered = text !== "" || env !== "" || kind !== "";
  if (counted) return <Panel title="Sessions" class="pool"><Summary counts={counted} /></Panel>;
  return (
    <Panel
      title={<>Sessions <span class="soft count">{filtered ? `${count(shown.value.length)} of ${count(rows.value.length)}` : count(live.value)}</span></>}
      class="pool"
      beside={
        <>
          <span class="grow" />
          <form class="tools" role="search" onSubmit={(event) => {
            event.preventDefault();
            const [only, ...others] = shown.value;
            if (only && others.length === 0) go("session", only.id);
          }}>
            <input
              type="search" class="field" placeholder="id, seed, owner, end …" aria-label="Search sessions" value={text}
              onInput={(event) => change({ text: event.currentTarget.value.trim() })}
            />
            <select class="field" aria-label="Environment" value={env} onChange={(event) => change({ env: event.currentTarget.value })}>
              <option value="">every environment</option>
              {server.environments.value.map(({ name }) => <option key={name}>{name}</option>)}
            </select>
            <button type="button" class="button" aria-pressed={listed.value} onClick={() => { listed.value = !listed.value; }}>
              {listed.value ? "Squares" : "Table"}
            </button>
          </form>
        </>
      }
    >
      <Legend counts={tally(rows.value)} chosen={kind} onChoose={(one) => change({ kind: one === kind ? "" : one })} />
      {shown.value.length === 0
        ? <Empty>{rows.value.length === 0 ? "There is no session." : "No session is like that."}</Empty>
        : listed.value ? <SessionTable rows={shown.value} /> : <Squares rows={shown.value} />}
    </Panel>
  );
}

function tally(rows: readonly { state: Parameters<typeof kindOf>[0]["state"]; in_flight: number; failed: boolean }[]): ReadonlyMap<Kind, number> {
  const counts = new Map<Kind, number>();
  for (const row of rows) counts.set(kindOf(row), (counts.get(kindOf(row)) ?? 0) + 1);
  return counts;
}

/** What the colors mean, how many there are of each, and a filter by them. */
function Legend({ counts, chosen, onChoose }: { counts: ReadonlyMap<Kind, number>; chosen: Kind | ""; onChoose: (kind: Kind) => void }) {
  return (
    <ul class="legend">
      {KINDS.filter((kind) => counts.has(kind) || kind === chosen).map((kind) => (
        <li key={kind}>
          <button type="button" title={`${MEANINGS[kind]}; show only these`} aria-pressed={kind === chosen} onClick={() => onChoose(kind)}>
            <Square kind={kind} />{kind} <b>{count(counts.get(kind) ?? 0)}</b>
          </button>
        </li>
      ))}
    </ul>
  );
}
