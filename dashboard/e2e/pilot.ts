/** Who plays where a picture is wanted: a pilot of the lunar lander, and wanderers for the rest. */
import type { Player } from "./muxsim.ts";

const NUMBER = /(x|y|vx|vy|angle|spin|left leg|right leg) (-?[\d.]+)/g;

/** The engine to fire, of what the lander says of itself: tilt against the drift, and brake what falls too fast. */
export function engine(said: string): "NOTHING" | "LEFT" | "MAIN" | "RIGHT" {
  const state = new Map(Array.from(said.matchAll(NUMBER), ([, name, value]) => [name, Number(value)]));
  const of = (name: string): number => state.get(name) ?? 0;
  const tilt = Math.max(-0.4, Math.min(0.4, 0.5 * of("x") + of("vx")));
  const turn = 0.5 * (tilt - of("angle")) - of("spin");
  const landed = of("left leg") + of("right leg") > 0;
  const lift = landed ? -0.5 * of("vy") : 0.5 * (0.55 * Math.abs(of("x")) - of("y")) - 0.5 * of("vy");
  if (lift > Math.abs(turn) && lift > 0.05) return "MAIN";
  if (landed || Math.abs(turn) < 0.05) return "NOTHING";
  return turn < 0 ? "RIGHT" : "LEFT";
}

/** Fly so many burns of three frames, or to the flight's end. */
export async function fly(player: Player, burns: number): Promise<void> {
  let next: ReturnType<typeof engine> = "NOTHING";
  for (let burn = 0; burn < burns; burn++) {
    const said = JSON.stringify(await player.call("fire", { engine: next, frames: 3 }, true));
    if (said.includes('"terminated":true')) return;
    next = engine(said);
  }
}
