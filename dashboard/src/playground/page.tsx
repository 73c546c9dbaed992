import { useSignal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { server, watching } from "../live/server.ts";
import { many } from "../numbers.ts";
import { Alert, Empty, Panel } from "../parts/basics.tsx";
import { link } from "../route.ts";
import { Watched } from "../session/page.tsx";
import { Play, spoken, type Wire } from "./client.ts";
import { ToolForm } from "./tool.tsx";
import "./playground.css";

/** Open a session by hand, call its tools from forms, and see what comes of it. */
export default function Playground() {
  const play = useSignal<Play | null>(null);
  useEffect(() => {
    // It is this page's, and goes with it: to another page of ours, to another site, or for good.
    const leave = (): void => void play.value?.end();
    addEventListener("pagehide", leave);
    return () => {
      removeEventListener("pagehide", leave);
      leave();
    };
  }, []);
  const hello = server.hello.value;
  if (watching.value?.connection.value.is === "refused") return <Panel><Empty>This token cannot open sessions. <a href={link()}>Overview</a></Empty></Panel>;
  if (!hello) return <p class="soft" role="status">Waiting for the server …</p>;
  if (!hello.opens) return <Panel><Empty>Who may only look cannot open sessions. <a href={link()}>Overview</a></Empty></Panel>;
  return (
    <>
      <h1 class="unseen-text">Playground</h1>
      <div class="playground">
        <div class="hands">
          {play.value ? <Tools key={play.value.id} play={play.value} onEnd={() => { void play.value?.end(); play.value = null; }} /> : <Opening onOpen={(opened) => { play.value = opened; }} />}
        </div>
        <div class="sight">
          {play.value ? <Watched key={play.value.id} id={play.value.id} />
            : <Panel><Empty>Open a session: what it says, shows and earns appears here as it happens.</Empty></Panel>}
        </div>
      </div>
    </>
  );
}

const SEED = /^\d*$/;

function Opening({ onOpen }: { onOpen: (play: Play) => void }) {
  const environments = server.environments.value;
  const [chosen, choose] = useState("");
  const [seed, setSeed] = useState("0");
  const [wire, setWire] = useState<Wire>("http");
  const [opening, setOpening] = useState(false);
  const [problem, setProblem] = useState("");
  const env = chosen || (environments.find((one) => one.default) ?? environments[0])?.name || "";
  const wrong = SEED.test(seed) ? "" : "a whole number from 0 up, or nothing for one by chance";

  const open = async (): Promise<void> => {
    if (wrong || opening) return;
    setOpening(true);
    setProblem("");
    try {
      onOpen(await Play.open(env, seed.replace(/^0+(?=\d)/, ""), wire, server.hello.value?.controls ?? false));
    } catch (error) {
      setProblem(spoken(error));
      setOpening(false);
    }
  };
  return (
    <Panel title="Open a session">
      <form class="tool-form" noValidate onSubmit={(event) => { event.preventDefault(); void open(); }}>
        <div class="one">
          <label for="environment">Environment</label>
          <select id="environment" class="field" value={env} onChange={(event) => choose(event.currentTarget.value)}>
            {environments.map(({ name }) => <option key={name} value={name}>{name}</option>)}
          </select>
        </div>
        <div class="one">
          <label for="seed">Seed</label>
          <input id="seed" class="field" inputMode="numeric" autocomplete="off" value={seed} aria-invalid={wrong !== ""} aria-describedby="seed-about" onInput={(event) => setSeed(event.currentTarget.value.trim())} />
          <span id="seed-about">{wrong ? <span class="fault" role="alert">{wrong}</span> : <span class="about">none: one by chance</span>}</span>
        </div>
        <div class="one">
          <label for="wire">Transport</label>
          <select id="wire" class="field" value={wire} onChange={(event) => setWire(event.currentTarget.value as Wire)}>
            <option value="http">streamable HTTP</option>
            <option value="sse">SSE</option>
          </select>
        </div>
        <p class="answers"><button type="submit" class="button main" disabled={opening || !env}>Open</button> <span class="about" role="status">{opening ? "It is being opened …" : ""}</span></p>
        {problem ? <Alert title="It could not be opened"><pre tabIndex={0}>{problem}</pre></Alert> : null}
      </form>
    </Panel>
  );
}

/** What there is to be seen before the first call. */
function Start({ play }: { play: Play }) {
  const shown = play.start.value;
  if (!shown?.length) return null;
  return (
    <Panel title="At the start" class="start">
      {shown.map((part, place) => ("image" in part
        ? <img key={place} src={part.image} alt="What there is to be seen at the start" />
        : <pre key={place} tabIndex={0}>{part.text.slice(0, LONGEST)}</pre>))}
    </Panel>
  );
}

const LONGEST = 5000;
const MANY = 8;

function Tools({ play, onEnd }: { play: Play; onEnd: () => void }) {
  const tools = play.tools.value;
  const [name, setName] = useState(tools[0]?.name ?? "");
  const [needle, setNeedle] = useState("");
  const tool = tools.find((one) => one.name === name) ?? tools[0];
  const found = tools.filter((one) => one.name.toLowerCase().includes(needle.toLowerCase()));
  return (
    <>
      <Start play={play} />
      {play.lost.value ? <Alert mild title="This page has lost its session"><p>{play.lost.value}</p></Alert> : null}
      <Panel title="Tools" beside={<><span class="soft">{many(tools.length, "tool")}</span><span class="grow" /><button type="button" class="button" onClick={onEnd}>End and choose another</button></>}>
        {tools.length > MANY ? <p class="find"><input class="field" type="search" aria-label="Find a tool" placeholder="Find a tool…" value={needle} onInput={(event) => setNeedle(event.currentTarget.value)} /></p> : null}
        {tools.length ? (
          <ul class="tool-names">
            {found.map((one) => (
              <li key={one.name}><button type="button" class="button" aria-pressed={one === tool} onClick={() => setName(one.name)}>{one.name}</button></li>
            ))}
          </ul>
        ) : <Empty>This environment has no tools.</Empty>}
        {tool ? <ToolForm key={tool.name} tool={tool} play={play} /> : null}
      </Panel>
    </>
  );
}
