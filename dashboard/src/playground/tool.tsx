import { useMemo, useState } from "preact/hooks";
import { Alert } from "../parts/basics.tsx";
import type { Outcome, Play, Tool } from "./client.ts";
import { type Draft, draftOf, type Fault, type Value, valueOf, written } from "./draft.ts";
import { FieldOf } from "./form.tsx";
import { type Field, fieldOf } from "./schema.ts";

const JSON_FIELD: Field = { is: "json", title: "", description: "", preset: {}, hint: "an object" };

/** One tool: what it is for, and the form that calls it. */
export function ToolForm({ tool, play }: { tool: Tool; play: Play }) {
  const field = useMemo(() => fieldOf(tool.inputSchema), [tool]);
  const [asJson, setAsJson] = useState(false);
  const [draft, setDraft] = useState<Draft>(() => draftOf(field));
  const [text, setText] = useState<Draft>({ is: "words", text: "{}" });
  const [faults, setFaults] = useState<readonly Fault[]>([]);
  const [stop, setStop] = useState<AbortController | null>(null);
  const [outcome, setOutcome] = useState<Outcome | null>(null);

  const call = async (): Promise<void> => {
    const { value, faults: found } = asJson ? valueOf(JSON_FIELD, text) : valueOf(field, draft);
    setFaults(found);
    if (found.length || stop) return;
    const stopping = new AbortController();
    setStop(stopping);
    setOutcome(null);
    setOutcome(await play.call(tool.name, value, stopping.signal));
    setStop(null);
  };
  const change = (): void => {
    if (!asJson) setText({ is: "words", text: asText(valueOf(field, draft).value) });
    setFaults([]);
    setAsJson(!asJson);
  };
  return (
    <form
      class="tool-form" noValidate aria-label={`Call ${tool.name}`}
      onSubmit={(event) => { event.preventDefault(); void call(); }}
      onKeyDown={(event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); void call(); } }}
    >
      {tool.description ? <p class="description">{tool.description.slice(0, LONGEST)}</p> : null}
      {asJson
        ? <FieldOf field={JSON_FIELD} draft={text} name="arguments" path="" faults={faults} onChange={setText} />
        : <FieldOf field={field} draft={draft} name="" path="" faults={faults} onChange={setDraft} />}
      <p class="answers">
        <button type="submit" class="button main" disabled={stop !== null || play.lost.value !== ""}>Call <code>{tool.name}</code></button>
        {stop ? <button type="button" class="button" onClick={() => stop.abort()}>Cancel</button> : null}
        <span class="grow" />
        <label class="given"><input type="checkbox" checked={asJson} onChange={change} /> as JSON</label>
      </p>
      <p class="about" role="status">{stop ? "It is being called …" : ""}</p>
      {outcome?.is === "failed" ? <Alert title="The call failed"><pre tabIndex={0}>{outcome.why}</pre></Alert> : null}
    </form>
  );
}

const LONGEST = 3000;

function asText(value: Value): string {
  return written(value, 2);
}
