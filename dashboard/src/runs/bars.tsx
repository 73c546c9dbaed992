import type { ComponentChildren } from "preact";
import { many, seconds, words } from "../numbers.ts";
import type { Counts } from "./data.ts";
import { tip } from "./tip.tsx";
import { endKind } from "./words.tsx";

interface Part {
  readonly about: string;
  readonly value: number;
  readonly kind: string;
}

/** One bar of parts. */
function Bar({ parts }: { parts: readonly Part[] }) {
  const total = parts.reduce((sum, { value }) => sum + value, 0);
  // Shares below 1 in all would leave a gap.
  const grow = (value: number): number => (100 * value) / total;
  return (
    <div class="bar">
      {parts.map(({ about, value, kind }) => <span key={about} class={kind} style={{ flexGrow: grow(value) }} {...tip(about)} />)}
    </div>
  );
}

export function EndsBar({ ends }: { ends: Counts["end_reasons"] }) {
  return <Bar parts={Object.entries(ends).map(([end, count]) => ({ about: `${words(end)}: ${many(count, "episode")}`, value: count, kind: endKind(end) }))} />;
}

const STAGES = ["queue", "start", "handshake", "model", "throttled", "tool", "control", "close"] as const;

/** Where time went: `told` writes the number beside each stage. */
export function Stages({ times, told }: { times: Readonly<Record<string, number>>; told: (stage: string, value: number) => ComponentChildren }) {
  const parts = STAGES.map((stage, index) => ({ stage, value: times[stage] ?? 0, kind: `k${index}` })).filter(({ value }) => value > 0);
  // What was throttled is a part of the model's time: in the bar it has its place beside the rest of that.
  const share = (stage: string, value: number): number => (stage === "model" ? Math.max(0, value - (times.throttled ?? 0)) : value);
  return (
    <>
      <Bar parts={parts.map(({ stage, value, kind }) => ({ about: `${stage}: ${seconds(value)}`, value: share(stage, value), kind }))} />
      <div class="lines">
        {parts.map(({ stage, value, kind }) => [
          <span key={`${stage}-dot`} class={`dot ${kind}`} aria-hidden="true" />,
          <span key={stage}>{stage === "throttled" ? "of it throttled" : stage}</span>,
          <span key={`${stage}-value`} class="number">{told(stage, value)}</span>,
        ])}
      </div>
    </>
  );
}
