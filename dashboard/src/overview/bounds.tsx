import { server } from "../live/server.ts";
import { count } from "../numbers.ts";
import { Empty, Panel } from "../parts/basics.tsx";
import { Age } from "../parts/time.tsx";

/** The settings that have said no, the last one first. */
export function Bounds() {
  const met = server.bounds.value.filter((one) => one.met > 0).sort((one, other) => (other.last ?? 0) - (one.last ?? 0));
  return (
    <Panel title="Bounds that were met" class="bounds">
      {met.length === 0 ? <Empty>None since the start.</Empty> : (
        <ul>
          {met.map(({ setting, met: times, last }) => (
            <li key={setting}><code>{setting}</code><span class="grow" /><b>{count(times)}×</b>{last === null ? null : <span class="soft">{" "}<Age since={last} /> ago</span>}</li>
          ))}
        </ul>
      )}
    </Panel>
  );
}
