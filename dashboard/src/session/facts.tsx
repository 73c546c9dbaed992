import type { Session } from "../live/session.ts";
import { bytes, percent } from "../numbers.ts";
import { Chip, Empty, Panel } from "../parts/basics.tsx";
import { Copy } from "../parts/copy.tsx";
import { clock } from "../parts/time.tsx";
import { useEffect, useRef } from "preact/hooks";

const NAMES: Readonly<Record<string, string>> = {
  mcp: "MCP", sse: "SSE", agent_mcp: "for an agent", handle: "handle", control: "control", session: "session",
};

export function Addresses({ session }: { session: Session }) {
  const urls = Object.entries(session.told.value?.urls ?? {});
  return (
    <Panel title="Addresses">
      <ul class="lines">
        {urls.map(([name, url]) => (
          <li key={name}><span class="soft">{NAMES[name] ?? name}</span><code class="grow">{url}</code><Copy text={url} label={`Copy the URL ${NAMES[name] ?? name}`} /></li>
        ))}
      </ul>
    </Panel>
  );
}

export function Attachments({ session }: { session: Session }) {
  const attached = session.ended.value ? [] : session.told.value?.attachments ?? [];
  return (
    <Panel title="Attached">
      {attached.length === 0 ? <Empty>Nobody.</Empty> : (
        <ul class="lines">
          {attached.map(({ number, transport, name, is_agent: isAgent }, place) => (
            <li key={number ?? place}>
              <span class="soft">{number === null ? "" : `#${number}`}</span><span>{transport}</span><span class="grow">{name ?? ""}</span>
              {isAgent ? <Chip>agent</Chip> : null}
            </li>
          ))}
        </ul>
      )}
    </Panel>
  );
}

export function ProcessList({ session }: { session: Session }) {
  // What was seen last of one that has ended is there no more.
  const processes = session.ended.value ? [] : session.processes.value?.processes ?? [];
  return (
    <Panel title="Processes">
      {processes.length === 0 ? <Empty>{session.ended.value ? "None any more." : "None seen yet."}</Empty> : (
        <div class="scroll" tabIndex={0} role="region" aria-label="Processes">
          <table>
            <thead><tr><th scope="col">pid</th><th scope="col">command</th><th scope="col">memory</th><th scope="col">CPU</th></tr></thead>
            <tbody>{processes.map(({ pid, command, memory, cpu }) => (
              <tr key={pid}><td>{pid}</td><td class="command" title={command}><code>{command}</code></td><td>{memory === null ? "–" : bytes(memory)}</td><td>{cpu === null ? "–" : percent(cpu)}</td></tr>
            ))}</tbody>
          </table>
        </div>
      )}
    </Panel>
  );
}

export function StderrLines({ session }: { session: Session }) {
  const box = useRef<HTMLPreElement>(null);
  const lines = session.stderr.value;
  const last = useRef(true);
  useEffect(() => {
    const element = box.current;
    if (element && last.current) element.scrollTop = element.scrollHeight;
  }, [lines]);
  return (
    <Panel title="stderr">
      {lines.length === 0 ? <Empty>Nothing.</Empty> : (
        <pre
          ref={box} class="stderr" tabIndex={0} role="log" aria-label="stderr" aria-live="off"
          onScroll={({ currentTarget: one }) => { last.current = one.scrollHeight - one.scrollTop - one.clientHeight < 24; }}
        >
          {lines.map(({ time, line }, place) => <span key={place} class="line"><time class="soft">{clock(time)}</time> {line}{"\n"}</span>)}
        </pre>
      )}
    </Panel>
  );
}
