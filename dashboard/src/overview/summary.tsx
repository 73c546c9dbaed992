import { useSignal } from "@preact/signals";
import type { Count } from "../feed.ts";
import { count, many } from "../numbers.ts";
import { go } from "../route.ts";
import { type Kind, KINDS, kindOfCount } from "./cells.ts";
import { Square } from "./square.tsx";

/** Sessions that are too many for a square each: how many of which kind each environment has. */
export function Summary({ counts }: { counts: readonly Count[] }) {
  const wanted = useSignal("");
  const tallied = byEnvironment(counts);
  const all = counts.reduce((sum, { sessions }) => sum + sessions, 0);
  const most = Math.max(1, ...tallied.map(([, kinds]) => total(kinds)));
  return (
    <div class="summary">
      <form class="tools" role="search" onSubmit={(event) => { event.preventDefault(); if (wanted.value) go("session", wanted.value); }}>
        <p class="grow">{many(all, "session")}: too many for a square each, so they are counted.</p>
        <input
          type="search" class="field mono" placeholder="A session's whole id" aria-label="Id of a session" value={wanted.value}
          onInput={(event) => { wanted.value = event.currentTarget.value.trim(); }}
        />
        <button type="submit" class="button">Open</button>
      </form>
      <dl>
        {tallied.map(([env, kinds]) => (
          <div key={env}>
            <dt>{env} <b>{count(total(kinds))}</b></dt>
            <dd>
              <span class="bar" aria-hidden="true" style={{ width: `${(100 * total(kinds)) / most}%` }}>
                {KINDS.filter((kind) => kinds.has(kind)).map((kind) => <Square key={kind} kind={kind} share={kinds.get(kind) ?? 0} />)}
              </span>
              <span class="soft">{KINDS.filter((kind) => kinds.has(kind)).map((kind) => `${count(kinds.get(kind) ?? 0)} ${kind}`).join(", ")}</span>
            </dd>
          </div>
        ))}
      </dl>
    </div>
  );
}

function total(kinds: ReadonlyMap<Kind, number>): number {
  return [...kinds.values()].reduce((sum, one) => sum + one, 0);
}

/** Environments by their number of sessions, the largest first. */
function byEnvironment(counts: readonly Count[]): [string, ReadonlyMap<Kind, number>][] {
  const tallied = new Map<string, Map<Kind, number>>();
  for (const one of counts) {
    const kinds = tallied.get(one.env) ?? new Map<Kind, number>();
    tallied.set(one.env, kinds.set(kindOfCount(one), (kinds.get(kindOfCount(one)) ?? 0) + one.sessions));
  }
  return [...tallied].sort(([, one], [, other]) => total(other) - total(one));
}
