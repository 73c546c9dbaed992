import { useSignal } from "@preact/signals";
import { useMemo } from "preact/hooks";
import type { SessionRow } from "../feed.ts";
import { server } from "../live/server.ts";
import { count, seconds, words } from "../numbers.ts";
import { Age } from "../parts/time.tsx";
import { link } from "../route.ts";
import { kindOf } from "./cells.ts";
import { Square } from "./square.tsx";

const AT_ONCE = 100;

/** The sessions one a line, some at once. */
export function SessionTable({ rows }: { rows: readonly SessionRow[] }) {
  const most = useSignal(AT_ONCE);
  const ordered = useMemo(() => [...rows].sort(inTable), [rows]);
  const left = rows.length - most.value;
  return (
    <>
      <div class="scroll" tabIndex={0} role="region" aria-label="Sessions">
        <table>
          <thead>
            <tr>{["Session", "Environment", "Seed", "Owner", "State", "Calls", "Open for", "End"].map((name) => <th key={name} scope="col">{name}</th>)}</tr>
          </thead>
          <tbody>{ordered.slice(0, most.value).map((row) => <Row key={row.id} row={row} />)}</tbody>
        </table>
      </div>
      {left > 0
        ? <p class="more"><button type="button" class="button" onClick={() => { most.value += AT_ONCE; }}>Show {Math.min(left, AT_ONCE)} more of {count(left)}</button></p>
        : null}
    </>
  );
}

/** Those that go on before those that are over, and of each the newest first. */
function inTable(one: SessionRow, other: SessionRow): number {
  return Number(one.state === "ended") - Number(other.state === "ended") || other.opened - one.opened;
}

function Row({ row }: { row: SessionRow }) {
  const kind = kindOf(row);
  return (
    <tr>
      <th scope="row">{server.looksInto() ? <a class="mono" href={link("session", row.id)}>{row.id}</a> : <code>{row.id}</code>}</th>
      <td>{row.env}</td>
      <td class="number">{row.seed}</td>
      <td>{row.owner ?? ""}</td>
      <td><span class="state"><Square kind={kind} />{kind}</span></td>
      <td class="number">{count(row.calls)}</td>
      <td class="number">{row.state === "ended" ? seconds(row.since - row.opened) : <Age since={row.opened} />}</td>
      <td>{row.end ? words(row.end) : ""}</td>
    </tr>
  );
}
