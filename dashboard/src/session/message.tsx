import { useSignal } from "@preact/signals";
import type { Control, Seen } from "../feed.ts";
import type { Session } from "../live/session.ts";
import { count, seconds } from "../numbers.ts";
import { Chip } from "../parts/basics.tsx";
import { clock } from "../parts/time.tsx";
import { Step } from "./control.tsx";
import { blocks, bodyOf, type Entry, type Exchange, isFailure, isRecord, type Note, pretty, toolCall } from "./exchanges.ts";
import { PictureOf } from "./picture.tsx";

// Longer ones are folded.
const SHORT = 1400;

/** One entry of the conversation: what passed, and beside it what only the control plane says. */
export function Row({ entry, control, session, hides }: { entry: Entry; control: readonly Control[]; session: Session; hides: boolean }) {
  return (
    <li class={`row ${hides ? "single" : ""}`}>
      <div class="seen">{entry.is === "note" ? <Said note={entry} /> : <Asked exchange={entry} session={session} />}</div>
      {hides ? null : <div class="unseen">{control.map((one) => <Step key={one.time} control={one} />)}</div>}
    </li>
  );
}

function Head({ seen, seconds: took }: { seen: Seen; seconds: number | null }) {
  const who = seen.attachment === null ? "" : `#${seen.attachment}`;
  return (
    <span class="aside">
      {took === null ? null : <span title="from the request to its answer">{seconds(took)}</span>}
      {who ? <span title="the client that it is of">{who}</span> : null}
      <time>{clock(seen.time)}</time>
    </span>
  );
}

function Asked({ exchange: { from, request, answer }, session }: { exchange: Exchange; session: Session }) {
  const first = request ?? answer;
  if (!first) return null;
  const call = request && from === "client" ? toolCall(request) : null;
  return (
    <>
      <div class="call">
        <span class="way" aria-label={from === "client" ? "client to server" : "server to client"}>{from === "client" ? "→" : "←"}</span>
        {call
          ? <code><span class="tool">{call.name}</span>({call.args?.map(([name, value], place) => (
            <span key={name}>{place ? ", " : ""}<span class="soft">{name}:</span> {JSON.stringify(value)}</span>
          )) ?? "…"})</code>
          : <code><span class="method">{first.method ?? "an answer"}</span></code>}
        {from === "server" ? <Chip mood="plain">asked by the server</Chip> : null}
        <Head seen={first} seconds={answer?.seconds ?? null} />
      </div>
      {request && !call?.args ? <Folded seen={request} name="params" /> : null}
      {answer ? <Answer answer={answer} session={session} /> : request ? <p class="waits">{unanswered(request, session)}</p> : null}
    </>
  );
}

function unanswered({ n }: Seen, { ended, before, told }: Session): string {
  if (ended.value) return "No answer has come: the session has ended.";
  return n <= before.value && told.value?.in_flight === 0 ? "Its answer was not seen: the connection was lost." : "in flight …";
}

function Answer({ answer, session }: { answer: Seen; session: Session }) {
  const content = blocks(answer);
  const body = bodyOf(answer);
  const structured = isRecord(body) ? body.structuredContent : undefined;
  const seen = answer.method === "tools/call" && answer.kind === "result" && body !== undefined && (content.length > 0 || structured !== undefined);
  if (!seen) return answer.images.length || isFailure(answer) ? <Shown answer={answer} session={session} /> : <Folded seen={answer} name={answer.kind} />;
  return (
    <div class={`result ${isFailure(answer) ? "error" : ""}`}>
      {content.map((block, place) => <Block key={place} block={block} place={place} answer={answer} session={session} />)}
      {structured !== undefined && !content.some(isText) ? <Long text={JSON.stringify(structured, null, 2)} /> : null}
    </div>
  );
}

function Shown({ answer, session }: { answer: Seen; session: Session }) {
  return (
    <div class={`result ${isFailure(answer) ? "error" : ""}`}>
      <Long text={pretty(answer)} cut={answer.cut} />
      {answer.images.map((image) => <PictureOf key={image.number} session={session} image={image} />)}
    </div>
  );
}

function isText(block: unknown): block is { text: string } {
  return isRecord(block) && block.type === "text" && typeof block.text === "string";
}

function Block({ block, place, answer, session }: { block: unknown; place: number; answer: Seen; session: Session }) {
  if (isText(block)) return <Long text={block.text} />;
  const images = answer.images.filter((one) => one.block === place);
  if (images.length) return <>{images.map((image) => <PictureOf key={image.number} session={session} image={image} />)}</>;
  return <Long text={JSON.stringify(block, null, 2)} />;
}

function Said({ note: { seen, from } }: { note: Note }) {
  return (
    <>
      <div class="call">
        <span class="way" aria-label={from === "client" ? "client to server" : "server to client"}>{from === "client" ? "→" : "←"}</span>
        <Notice seen={seen} />
        <Head seen={seen} seconds={null} />
      </div>
    </>
  );
}

function Notice({ seen }: { seen: Seen }) {
  const body = bodyOf(seen);
  if (seen.method === "notifications/progress" && isRecord(body) && typeof body.progress === "number") {
    const { progress, total, message } = body;
    const most = typeof total === "number" && total > 0 ? total : null;
    return (
      <span class="notice">
        <progress {...(most === null ? {} : { max: most, value: Math.min(most, progress) })} aria-label="progress" />
        {` ${progress}${most === null ? "" : ` of ${most}`} ${typeof message === "string" ? message : ""}`}
      </span>
    );
  }
  if (seen.method === "notifications/message" && isRecord(body)) {
    const { level, data, logger } = body;
    const mood = /^(error|critical|alert|emergency)$/.test(String(level)) ? "bad" : level === "warning" ? "warn" : "";
    return (
      <span class="notice"><Chip mood={mood}>{typeof level === "string" ? level : "log"}</Chip>{typeof logger === "string" ? ` ${logger}:` : ""}{" "}
        <code>{typeof data === "string" ? data : JSON.stringify(data)}</code></span>
    );
  }
  return <span class="notice"><code class="soft">{seen.method}</code> {seen.body === "" || seen.body === "{}" || seen.body === "null" ? "" : <code>{seen.body}</code>}</span>;
}

function Folded({ seen, name }: { seen: Seen; name: string }) {
  if (seen.body === "" && seen.cut > 0) return <p class="folded soft">{count(seen.cut)} bytes of {name} are not kept.</p>;
  if (seen.body === "" || seen.body === "{}" || seen.body === "null") return null;
  return <details class="folded"><summary>{name}</summary><Long text={pretty(seen)} cut={seen.cut} /></details>;
}

/** A text; of a long one its beginning, until the reader wants all of it. */
function Long({ text, cut = 0 }: { text: string; cut?: number }) {
  const whole = useSignal(false);
  const folded = !whole.value && text.length > SHORT;
  return (
    <>
      <pre>{folded ? `${text.slice(0, SHORT)} …` : text}</pre>
      {folded ? <button type="button" class="unfold" onClick={() => { whole.value = true; }}>Show all {count(text.length)} characters</button> : null}
      {cut && !folded ? <p class="soft">{count(cut)} more characters are not kept.</p> : null}
    </>
  );
}
