import { useComputed, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { Control } from "../feed.ts";
import type { Session } from "../live/session.ts";
import { many } from "../numbers.ts";
import { Empty, Panel } from "../parts/basics.tsx";
import { converse, type Entry } from "./exchanges.ts";
import { Row } from "./message.tsx";

const AT_ONCE = 120;

/** The conversation as it happens, its last entries; it follows the last one until the reader scrolls away. */
export function Story({ session }: { session: Session }) {
  const most = useSignal(AT_ONCE);
  const following = useSignal(true);
  const box = useRef<HTMLDivElement>(null);
  const entries = useComputed(() => converse(session.messages.value));
  const byMessage = useComputed(() => grouped(session.control.value));
  const hides = !(session.told.value?.controls ?? false);
  const shown = entries.value.slice(-most.value);
  const earlier = entries.value.length - shown.length;
  useEffect(() => {
    if (box.current && following.value) box.current.scrollTop = box.current.scrollHeight;
  }, [entries.value, following.value]);
  return (
    <Panel
      title="Conversation" class="story"
      beside={<><span class="soft">{many(entries.value.length, "entry").replace("entrys", "entries")}</span><span class="grow" />
        {session.lost.value ? <span class="failures">{many(session.lost.value, "event")} left out</span> : null}
        <button type="button" class="button" aria-pressed={following.value} onClick={() => { following.value = !following.value; }}>Follow</button></>}
    >
      {entries.value.length === 0 ? <Empty>{session.ended.value ? "Nothing of it is kept." : session.told.value?.history ? "Nothing has been said yet." : "Nothing has been said since this page is open. The setting history has calls kept before that."}</Empty> : (
        <div
          ref={box} class="talk" tabIndex={0} role="log" aria-live="off" aria-label="Conversation"
          onScroll={({ currentTarget: one }) => { following.value = one.scrollHeight - one.scrollTop - one.clientHeight < 40; }}
        >
          {earlier > 0
            ? <p class="more"><button type="button" class="button" onClick={() => { following.value = false; most.value += AT_ONCE; }}>Show {Math.min(earlier, AT_ONCE)} of {earlier} before</button></p>
            : null}
          <ol>{shown.map((entry) => <Row key={entry.n} entry={entry} session={session} hides={hides} control={controlOf(entry, byMessage.value)} />)}</ol>
        </div>
      )}
    </Panel>
  );
}

const NONE: readonly Control[] = [];

function controlOf(entry: Entry, byMessage: ReadonlyMap<number, readonly Control[]>): readonly Control[] {
  const answer = entry.is === "exchange" ? entry.answer : null;
  return (answer && byMessage.get(answer.n)) ?? NONE;
}

function grouped(control: readonly Control[]): ReadonlyMap<number, readonly Control[]> {
  const groups = new Map<number, Control[]>();
  for (const one of control) {
    if (one.n === null) continue;
    const group = groups.get(one.n);
    if (group) group.push(one);
    else groups.set(one.n, [one]);
  }
  return groups;
}
