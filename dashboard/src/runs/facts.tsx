import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { Alert } from "../parts/basics.tsx";
import { bytes, compact, many, number, seconds, words } from "../numbers.ts";
import { Stages } from "./bars.tsx";
import { pretty, Terminal } from "./content.tsx";
import type { Details, Episode, Json } from "./data.ts";
import { useHere } from "./source.ts";
import { EnvTag, when } from "./words.tsx";

function Entry({ name, children }: { name: string; children?: ComponentChildren }) {
  if (children === null || children === undefined || children === "") return null;
  return <><dt>{name}</dt><dd>{children}</dd></>;
}

/** Something long that is written out only when it is opened. */
function Folded({ name, value }: { name: string; value: Json | Details }) {
  const [open, setOpen] = useState(false);
  if (value === null) return null;
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>{name}</summary>
      {open ? <pre tabIndex={0}>{pretty(value)}</pre> : null}
    </details>
  );
}

export function Facts({ details }: { details: Details }) {
  const { run } = useHere();
  const { usage, times, scores } = details;
  return (
    <section class="panel facts" aria-label="Facts">
      <dl>
        <Entry name="environment"><EnvTag run={run} env={details.env} /></Entry>
        <Entry name="seed">{String(details.seed)}</Entry>
        <Entry name="row">{details.row === details.id ? null : `${details.row}, sample ${details.sample}`}</Entry>
        <Entry name="session">{details.session ? <span class="mono">{details.session}</span> : null}</Entry>
        <Entry name="started">{when(details.started_at)}</Entry>
        <Entry name="took">{details.end_reason === null ? null : seconds(details.seconds)}</Entry>
        {Object.entries(scores).map(([name, value]) => <Entry key={name} name={name}>{number(value)}</Entry>)}
        <Entry name="tokens">{usage.total_tokens ? `${compact(usage.prompt_tokens)} read, ${compact(usage.completion_tokens)} written` : null}</Entry>
      </dl>
      <Stages times={times} told={(_, value) => seconds(value)} />
      <Folded name="Tools" value={details.tools} />
      <Folded name="Evaluation criteria" value={details.evaluation_criteria} />
      <Folded name="Info" value={details.info} />
      <Folded name="This episode as JSON" value={details} />
    </section>
  );
}

// What a browser shows and does not run; whoever wrote these files may have written anything into them.
const SHOWN = /\.(png|jpe?g|gif|webp|bmp|txt|log|csv|jsonl?|md|pdf)$/i;

export function Files({ details: { files, files_problem: problem } }: { details: Details }) {
  const { source, run } = useHere();
  if (!files.length && !problem) return null;
  return (
    <section class="panel facts files" aria-label="Files">
      <h2>Files of its workspace</h2>
      <dl>
        {files.map(({ path, file, size, sha256 }) => [
          <dt key={path}>{SHOWN.test(path) ? <a href={source.file(run, file)} target="_blank" rel="noopener noreferrer">{path}</a> : <span title={file}>{path}</span>}</dt>,
          <dd key={`${path} size`} title={sha256}>{bytes(size)}</dd>,
        ])}
      </dl>
      {problem ? <p class="negative">Not kept: {problem}</p> : null}
    </section>
  );
}

/** Why an episode failed, or what is amiss with it. */
export function Failure({ details, episode }: { details: Details; episode: Episode }) {
  const { error, traceback, stderr, valid, end_reason: end } = details;
  const { images_left_out: missing } = episode;
  const title = valid || end === null ? "Something is amiss" : `The episode failed: ${words(end)}`;
  return (
    <>
      {error || stderr.length ? (
        <Alert title={title} mild={valid}>
          {error ? <p>{error}</p> : null}
          {traceback ? <pre tabIndex={0}>{traceback}</pre> : null}
          {stderr.length ? <pre tabIndex={0}><Terminal text={stderr.join("\n")} /></pre> : null}
        </Alert>
      ) : null}
      {missing ? <Alert mild title={`${many(missing, "image")} of this episode would make the report too large`} /> : null}
    </>
  );
}
