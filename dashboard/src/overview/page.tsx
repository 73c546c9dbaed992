import { server } from "../live/server.ts";
import { Bounds } from "./bounds.tsx";
import { Environments } from "./environments.tsx";
import { History } from "./history.tsx";
import { Pool } from "./pool.tsx";
import "./overview.css";

/** What the whole server is doing. */
export function Overview() {
  if (!server.known.value) return <p class="soft" role="status">Waiting for the server …</p>;
  return (
    <div class="overview">
      <h1 class="unseen-text">Overview</h1>
      <div class="left"><Pool /><Environments /></div>
      <div class="right"><History /><Bounds /></div>
    </div>
  );
}
