import { useState } from "preact/hooks";
import { many, number, percent } from "../numbers.ts";
import type { Run } from "./data.ts";
import { EnvTag, reward, within } from "./words.tsx";

const AT_ONCE = 10;
const NAMES = [["Row"], ["Environment"], ["Episodes", 1], ["Mean", 1], ["95 %", 1], ["Deviation", 1], ["Rewards", 1], ["Success", 1]] as const;

/** The rows that were played several times: the best first, or the worst. */
export function Groups({ run, onChoose }: { run: Run; onChoose: (row: string) => void }) {
  const [worst, setWorst] = useState(false);
  const [shown, setShown] = useState(AT_ONCE);
  const { rows } = run.metrics;
  if (!rows.length) return null;
  const scored = rows.filter((one) => one.mean_reward !== null);
  const rest = rows.filter((one) => one.mean_reward === null);
  const sorted = [...(worst ? scored.toReversed() : scored), ...rest];
  return (
    <section class="panel groups" aria-label="Groups">
      <div class="tools">
        <h2>Groups</h2>
        <span class="count">{many(rows.length, "row")}</span>
        <span class="grow" />
        <button type="button" class="button" onClick={() => setWorst(!worst)}>{worst ? "worst first" : "best first"}</button>
      </div>
      <div class="scroll" tabIndex={0} role="region" aria-label="Rows">
        <table>
          <thead><tr>{NAMES.map(([name, isNumber]) => <th key={name} scope="col" class={isNumber ? "number" : ""}><span class="plain">{name}</span></th>)}</tr></thead>
          <tbody>
            {sorted.slice(0, shown).map((one) => (
              <tr key={`${one.env} ${one.row}`} title="Show its episodes" onClick={() => onChoose(one.row)}>
                <td class="name">{one.row}</td>
                <td><EnvTag run={run} env={one.env} /></td>
                <td class="number">{one.scored === one.episodes ? one.episodes : `${one.scored} of ${one.episodes}`}</td>
                <td class="number">{reward(one.mean_reward)}</td>
                <td class="number">{within(one.mean_interval) || "–"}</td>
                <td class="number">{reward(one.std_reward)}</td>
                <td class="number">{one.min_reward === null || one.max_reward === null ? "–" : `${number(one.min_reward)} to ${number(one.max_reward)}`}</td>
                <td class="number">{one.success_rate === null ? "–" : percent(one.success_rate)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {shown < sorted.length ? (
        <div class="empty"><button type="button" class="button" onClick={() => setShown(shown * 10)}>Show more of {sorted.length}</button></div>
      ) : null}
    </section>
  );
}
