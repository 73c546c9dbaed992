import { many, number, seconds, signed, words } from "../numbers.ts";
import { Call, Clipped, Content, imageOf, isBlank, pretty, short, Terminal } from "./content.tsx";
import { type Details, type Json, type Message, rewardOf, type Run, type Step } from "./data.ts";
import { memo } from "./memo.ts";
import { useHere } from "./source.ts";
import { signOf } from "./words.tsx";

/** What the agent saw and did, and beside it, apart, what it could not see. `onSeek` is told the frame of a step. */
export const Story = memo(function Story({ details, onSeek }: { details: Details; onSeek: (frame: number) => void }) {
  const carriedOut = new Set(details.steps.map((step) => step.call_id));
  const frames = new Set<string>();
  let total = 0;
  return (
    <section class="panel story" aria-label="Conversation">
      <div class="row head"><div class="seen">What the agent saw and did</div><div class="unseen">Hidden: control plane</div></div>
      {details.messages.map((message, index) => {
        const step = message.role === "tool" && typeof message.step === "number" ? details.steps[message.step] : undefined;
        if (step) {
          total += rewardOf(step) ?? 0;
          for (const block of step.content) frames.add(imageOf(block) ?? "");
          return <StepRow key={index} step={step} total={total} onSeek={onSeek} />;
        }
        if (message.role === "assistant") return <Reply key={index} message={message} carriedOut={carriedOut} />;
        return repeatsFrames(message, frames) ? null : <Said key={index} message={message} />;
      })}
      <End details={details} />
    </section>
  );
});

function End({ details: { end_reason: end, total_reward: earned, steps } }: { details: Details }) {
  if (end === null) return <div class="end" role="status">The episode is being played: {many(steps.length, "step")} so far.</div>;
  return (
    <div class="end">
      The episode ended: <b>{words(end)}</b>
      {earned === null ? ", without a reward." : <>; reward <b class={signOf(earned)}>{number(earned)}</b>.</>}
    </div>
  );
}

function StepRow({ step, total, onSeek }: { step: Step; total: number; onSeek: (frame: number) => void }) {
  const seek = (): void => { if (!getSelection()?.toString()) onSeek(step.index + 1); };
  return (
    <div class="row step" data-step={step.index} onClick={seek}>
      <div class="seen">
        <div class="call"><span class="index" title="step">{step.index}</span><Call tool={step.tool} args={step.arguments} /></div>
        <Clipped class={step.is_error ? "result error" : "result"}><Result step={step} /></Clipped>
      </div>
      <ControlCell step={step} total={total} />
    </div>
  );
}

function Result({ step: { content, structured } }: { step: Step }) {
  const { run } = useHere();
  if (content.length) return <Content content={hidesImages(run) ? content.map(hidden) : content} />;
  return structured === null ? <span class="none">(no content)</span> : <pre>{pretty(structured)}</pre>;
}

/** Whether the policy was shown no image; its steps have them all the same. */
function hidesImages({ config }: Run): boolean {
  const { options } = config;
  return typeof options === "object" && options !== null && !Array.isArray(options) && (options as Readonly<Record<string, Json>>).images === false;
}

function hidden(block: Json): Json {
  return imageOf(block) === null ? block : { type: "text", text: "[image, not shown]" };
}

function ControlCell({ step, total }: { step: Step; total: number }) {
  const { control } = step;
  const took = ([["model", step.model_seconds], ["tool", step.tool_seconds], ["control", step.control_seconds]] as const).filter(([, value]) => value > 0);
  const times = took.length ? <div class="took">{took.map(([name, value]) => `${name} ${seconds(value)}`).join(" · ")}</div> : null;
  if (!control) return <div class="unseen"><span class="none">no control plane</span>{times}</div>;
  const info = Object.entries(control.info);
  return (
    <div class="unseen">
      <Earned value={control.reward} total={total} />
      <div class="flags">
        {control.terminated ? <span class="chip plain">terminated</span> : null}
        {control.truncated ? <span class="chip warn">truncated</span> : null}
      </div>
      {control.problem ? <div class="negative">{control.problem}</div> : null}
      {info.length ? <dl class="info">{info.map(([key, item]) => <div key={key}><dt>{key}</dt><dd>{short(item)}</dd></div>)}</dl> : null}
      {times}
    </div>
  );
}

/** The reward of a step, and the sum so far. */
export function Earned({ value, total }: { value: number | null; total: number }) {
  return (
    <>
      <span class={`reward ${signOf(value)}`}>{value === null ? "no reward" : signed(value)}</span>
      {value === null ? null : <span class="sum">{"  Σ "}{number(total)}</span>}
    </>
  );
}

function parsed(text: string): Json {
  try {
    return JSON.parse(text) as Json;
  } catch {
    return text;
  }
}

function Reply({ message, carriedOut }: { message: Message; carriedOut: ReadonlySet<string> }) {
  const reasoning = message.reasoning_content ?? message.reasoning;
  const rest = (message.tool_calls ?? []).filter((call) => !carriedOut.has(call.id ?? ""));
  const cut = message.finish_reason && !["stop", "tool_calls"].includes(message.finish_reason) ? message.finish_reason : null;
  if (isBlank(message.content) && !reasoning && !rest.length && !cut) return null;
  return (
    <div class="row reply">
      <div class="seen">
        <span class="who">assistant</span>
        {cut ? <span class="chip warn">{cut}</span> : null}
        {typeof reasoning === "string" && reasoning ? <Clipped class="words reasoning">{reasoning}</Clipped> : null}
        {isBlank(message.content) ? null : <Words content={message.content} kind="words" />}
        {rest.map((call, index) => (
          <div key={index} class="call">
            <span class="index">–</span>
            <Call tool={call.function?.name ?? "?"} args={parsed(call.function?.arguments ?? "")} />
            <span class="none">not carried out</span>
          </div>
        ))}
      </div>
      <div class="unseen" />
    </div>
  );
}

function Words({ content, kind }: { content: Json | undefined; kind: string }) {
  return <Clipped class={kind}>{typeof content === "string" ? <Terminal text={content} /> : <Content content={content} />}</Clipped>;
}

/** Frames are shown to a model in a message of their own; here they are with their step already. */
function repeatsFrames({ role, content }: Message, frames: ReadonlySet<string>): boolean {
  if (role !== "user" || !Array.isArray(content)) return false;
  const images = (content as readonly Json[]).map(imageOf).filter((image) => image !== null);
  return images.length > 0 && images.every((image) => frames.has(image));
}

function Said({ message: { role, content } }: { message: Message }) {
  return (
    <div class="row message">
      <div class="seen"><span class="who">{role}</span><Words content={content} kind={role === "user" ? "words mono" : "words"} /></div>
      <div class="unseen" />
    </div>
  );
}
