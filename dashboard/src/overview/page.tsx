import { useSignal } from "@preact/signals";
import { server, watching } from "../live/server.ts";
import { Panel } from "../parts/basics.tsx";
import { Trouble } from "../parts/trouble.tsx";
import { go } from "../route.ts";
import { Bounds } from "./bounds.tsx";
import { Environments } from "./environments.tsx";
import { History } from "./history.tsx";
import { Pool } from "./pool.tsx";
import "./overview.css";

/** What the whole server is doing. */
export function Overview() {
  const stream = watching.value;
  const connection = stream?.connection.value;
  if (connection?.is === "refused") return <OneSession why={connection.why} />;
  return (
    <>
      <h1 class="unseen-text">Overview</h1>
      {stream ? <Trouble stream={stream} what="the overview" /> : null}
      {server.known.value ? (
        <div class="overview">
          <div class="left"><Pool /><Environments /></div>
          <div class="right"><History /><Bounds /></div>
        </div>
      ) : <p class="soft" role="status">Waiting for the server …</p>}
    </>
  );
}

/** Who may not see the server may see a session whose id it knows. */
function OneSession({ why }: { why: string }) {
  const id = useSignal("");
  return (
    <Panel title="Open a session" class="one-session">
      <form onSubmit={(event) => { event.preventDefault(); if (id.value) go("session", id.value); }}>
        <p class="soft">The overview is not for this token: {why}.</p>
        <label for="id">Id of a session</label>
        <input id="id" class="field mono" required value={id.value} onInput={(event) => { id.value = event.currentTarget.value.trim(); }} />
        <button type="submit" class="button main">Open</button>
      </form>
    </Panel>
  );
}
