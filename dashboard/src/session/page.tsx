import { useSignal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { ask, reason, token } from "../access.ts";
import type { Ended } from "../feed.ts";
import { server } from "../live/server.ts";
import { attend, type Session } from "../live/session.ts";
import { seconds, words } from "../numbers.ts";
import { Alert, Chip } from "../parts/basics.tsx";
import { Copy } from "../parts/copy.tsx";
import { Question } from "../parts/question.tsx";
import { Age, stamp } from "../parts/time.tsx";
import { Trouble } from "../parts/trouble.tsx";
import { link, route } from "../route.ts";
import { ControlPlane } from "./control.tsx";
import { Addresses, Attachments, ProcessList, StderrLines } from "./facts.tsx";
import { Screen } from "./screen.tsx";
import { curl, python } from "./snippets.ts";
import { Story } from "./story.tsx";
import "./session.css";

/** One session, by the id in the route. */
export function SessionPage() {
  const id = route.value[1] ?? "";
  return <Watched key={id} id={id} />;
}

/** A session by its id, as it goes on. */
export function Watched({ id }: { id: string }) {
  const { session, stream } = useMemo(() => attend(id), [id]);
  useEffect(() => () => stream.stop(), [stream]);
  const connection = stream.connection.value;
  const told = session.told.value;
  if (!told) {
    return connection.is === "refused"
      ? <Alert title="This session is not there" mild><p>{connection.why}</p><p><a href={link()}>Overview</a></p></Alert>
      : <><Trouble stream={stream} what="this session" /><p class="soft" role="status">Waiting for the session …</p></>;
  }
  const ended = session.ended.value;
  return (
    <>
      <Trouble stream={stream} what="this session" />
      <Title session={session} />
      {ended ? <End ended={ended} /> : null}
      <div class="session">
        <div class="side first">
          <Screen session={session} />
          {told.controls ? <ControlPlane session={session} /> : null}
        </div>
        <Story session={session} />
        <div class="side rest">
          <Addresses session={session} />
          <Attachments session={session} />
          {told.controls ? <><ProcessList session={session} /><StderrLines session={session} /></> : null}
        </div>
      </div>
    </>
  );
}

function Title({ session }: { session: Session }) {
  const told = session.told.value;
  if (!told) return null;
  const url = told.urls.mcp ?? told.urls.agent_mcp;
  const state = session.ended.value ? "ended" : told.state;
  return (
    <header class="title">
      <p class="crumb"><a href={link()}>Overview</a> <span class="soft" aria-hidden="true">/</span> <code title={told.id}>{told.id}</code> <Copy text={told.id} label="Copy the session's id" /></p>
      <div class="name">
        <h1>{told.env}{told.seed === null ? null : <span class="soft"> seed {told.seed}</span>}</h1>
        <Chip mood={state === "ready" ? "good" : state === "ended" ? "" : "warn"}>{state}</Chip>
        {told.in_flight && !session.ended.value ? <Chip mood="plain">{told.in_flight} in flight</Chip> : null}
        <span class="soft">{session.ended.value ? `was open for ${seconds(session.ended.value.time - told.opened)}` : <>open for <Age since={told.opened} /></>}{told.owner === null ? "" : `, by ${told.owner}`}{told.lease === null || session.ended.value ? "" : `, on a lease of ${seconds(told.lease)}`}{told.pid === null || session.ended.value ? "" : `, pid ${told.pid}`}, {told.calls} calls</span>
        <span class="grow" />
        {session.ended.value ? null : (
          <span class="actions">
            {url ? <>
              <Copy text={curl(url, token.value !== null)} label="Copy as curl">curl</Copy>
              <Copy text={python(url, token.value !== null)} label="Copy as a Python snippet">Python</Copy>
            </> : null}
            {told.may_end ? <EndButton id={told.id} /> : null}
          </span>
        )}
      </div>
    </header>
  );
}

function EndButton({ id }: { id: string }) {
  const asking = useSignal(false);
  const problem = useSignal("");
  const end = async () => {
    asking.value = false;
    problem.value = "";
    try {
      const response = await ask(`./sessions/${encodeURIComponent(id)}`, { method: "DELETE" });
      if (!response.ok) problem.value = await reason(response);
    } catch (error) {
      problem.value = error instanceof Error ? error.message : "it could not be asked for";
    }
  };
  return (
    <>
      <button type="button" class="button danger" onClick={() => { asking.value = true; }}>End session</button>
      {problem.value ? <span role="alert" class="failures">{problem.value}</span> : null}
      {asking.value ? (
        <Question title="End this session?" yes="End it" onYes={() => void end()} onNo={() => { asking.value = false; }}>
          <p>Its processes are ended, and its clients get an error for what is in flight. This cannot be undone.</p>
          <p><code>{id}</code></p>
        </Question>
      ) : null}
    </>
  );
}

function End({ ended }: { ended: Ended }) {
  const status = ended.exit_status === null ? "" : `, exit status ${ended.exit_status}`;
  return (
    <Alert title={`Ended: ${words(ended.cause)}${status}`} mild={!ended.failed}>
      <p>{ended.text} <span class="soft">{stamp(ended.time)}</span></p>
      {ended.stderr.length && server.hello.value?.controls !== false ? <pre>{ended.stderr.join("\n")}</pre> : null}
    </Alert>
  );
}
