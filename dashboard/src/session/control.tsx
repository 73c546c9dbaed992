import type { Control } from "../feed.ts";
import { number, signed } from "../numbers.ts";
import { Chip, Panel } from "../parts/basics.tsx";
import { Chart } from "../parts/chart.tsx";
import type { Session } from "../live/session.ts";
import { useMemo } from "preact/hooks";

function sign(value: number): string {
  return value > 0 ? "positive" : value < 0 ? "negative" : "zero";
}

function Flags({ terminated, truncated }: Pick<Control, "terminated" | "truncated">) {
  return <>{terminated ? <Chip mood="plain">terminated</Chip> : null}{truncated ? <Chip mood="warn">truncated</Chip> : null}</>;
}

/** What the control plane said of one message. */
export function Step({ control }: { control: Control }) {
  const { reward, total, step, info, problem } = control;
  return (
    <div class="step">
      <p>{reward === null ? <span class="reward none">no reward</span> : <span class={`reward ${sign(reward)}`}>{signed(reward)}</span>}
        {total === null ? null : <span class="sum" title="of all steps so far"> Σ {number(total)}</span>}
        {step === null ? null : <span class="soft"> step {step}</span>}</p>
      <p class="flags"><Flags {...control} /></p>
      {problem ? <p class="negative">{problem}</p> : null}
      {info && info !== "{}" && info !== "null" ? <details><summary>info</summary><pre>{info}</pre></details> : null}
    </div>
  );
}

/** The reward so far, and how it stands: what the trainer sees and the agent must not. */
export function ControlPlane({ session }: { session: Session }) {
  const control = session.control.value;
  const scored = useMemo(() => control.filter(({ total }) => total !== null), [control]);
  const lines = useMemo(() => [
    { label: "reward so far", color: "--hidden-ink", values: scored.map(({ total }) => total), filled: true },
  ], [scored]);
  const xs = useMemo(() => scored.map((_, place) => place + 1), [scored]);
  const last = control.at(-1);
  const earned = last?.total ?? null;
  const seen = useMemo(() => control.reduce((sum, { reward }) => sum + (reward ?? 0), 0), [control]);
  return (
    <Panel title="Control plane" class="plane" beside={<span class="hint">the agent does not see this</span>}>
      {last === undefined ? <p class="soft pad">Nothing has been said yet.</p> : (
        <div class="pad">
          <p class="score"><b>{earned === null && last.reward === null ? "–" : number(earned ?? seen)}</b>{" "}
            <span class="soft">{earned === null && last.reward !== null ? "reward since this was looked at" : "reward so far"}</span>
            {last.reward === null ? null : <span class={sign(last.reward)}>{signed(last.reward)} last</span>} <Flags {...last} /></p>
          {scored.length > 1
            ? <Chart xs={xs} lines={lines} label={`Reward so far over ${scored.length} steps, ${number(last.total ?? 0)} now`} height={110} write={number} grounded={false} />
            : null}
          {last.problem ? <p class="negative">{last.problem}</p> : null}
        </div>
      )}
    </Panel>
  );
}
