import { useSignal } from "@preact/signals";
import type { Environment, Failure } from "../feed.ts";
import { server } from "../live/server.ts";
import { bytes, count, many, seconds } from "../numbers.ts";
import { Chip, Dot, Empty, type Mood, Panel } from "../parts/basics.tsx";
import { stamp } from "../parts/time.tsx";

const STATES: Readonly<Record<Environment["state"], readonly [Mood, string]>> = {
  ok: ["good", "ok"], failed: ["bad", "last session failed"], broken: ["bad", "keeps failing"], installing: ["warn", "installing"],
};
// Hundreds of cards are a wall: so many at first, those with trouble among them.
const AT_ONCE = 24;

/** A card for each environment; those in trouble come first. */
export function Environments() {
  const all = useSignal(false);
  const environments = server.environments.value;
  const ordered = [...environments].sort((one, other) => Number(one.state === "ok") - Number(other.state === "ok"));
  const shown = all.value ? ordered : ordered.slice(0, AT_ONCE);
  return (
    <section aria-labelledby="environments">
      <h2 id="environments" class="over">Environments <span class="soft count">{count(environments.length)}</span></h2>
      {environments.length === 0 ? <Panel><Empty>There is no environment that you may see.</Empty></Panel> : null}
      <ul class="cards">{shown.map((one) => <Card key={one.name} env={one} place={environments.indexOf(one)} />)}</ul>
      {ordered.length > shown.length
        ? <p class="more"><button type="button" class="button" onClick={() => { all.value = true; }}>Show {ordered.length - shown.length} more</button></p>
        : null}
    </section>
  );
}

function Card({ env, place }: { env: Environment; place: number }) {
  const [mood, state] = STATES[env.state];
  const ways = (["slot", "fork", "fresh"] as const).filter((way) => env.starts[way] !== null);
  return (
    <li class={`panel card ${env.error && env.state !== "ok" ? "trouble" : ""}`}>
      <h3><Dot place={place} /><span class="name">{env.name}</span><span class="soft">{env.kind}{env.shared ? ", shared" : ""}{env.default ? ", default" : ""}</span>
        <span class="grow" /><Chip mood={mood}>{state}</Chip></h3>
      <dl class="figures">
        <div><dt>live</dt><dd>{count(env.live)}</dd></div>
        <div title="processes that are ready before anybody asks, and how many are wanted"><dt>ready</dt><dd>{env.warm}{env.wanted_warm ? <span class="soft"> of {env.wanted_warm}</span> : null}</dd></div>
        <div><dt>waiting</dt><dd class={env.waiting ? "noted" : ""}>{count(env.waiting)}</dd></div>
        <div><dt>memory</dt><dd>{env.memory === null ? "–" : bytes(env.memory)}</dd></div>
      </dl>
      <p class="soft">
        {many(env.opens, "open")}, <span class={env.failures ? "failures" : ""}>{many(env.failures, "failure")}</span>
        {env.starting ? `, ${count(env.starting)} without a first answer yet` : ""}
      </p>
      {ways.length
        ? <p class="soft" title="median of the last starts by each way">starts: {ways.map((way) => `${way} ${seconds(env.starts[way] ?? 0)}`).join(", ")}</p>
        : null}
      {env.retry_after === null ? null : <p class="failures">tries again in {seconds(Math.ceil(env.retry_after))}</p>}
      {env.error
        ? <details open={env.state !== "ok"}><summary>last error, {stamp(env.error.time)}</summary><pre class="error" tabIndex={0} role="region" aria-label={`last error of ${env.name}`}>{lastWords(env.error)}</pre></details>
        : null}
    </li>
  );
}

/** What went wrong, and what was said last, unless that stands in the first already. */
function lastWords({ text, stderr }: Failure): string {
  return [text, ...(stderr.every((line) => text.includes(line)) ? [] : stderr)].join("\n");
}
