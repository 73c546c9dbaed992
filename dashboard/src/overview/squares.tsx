import { useSignal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import type { SessionRow } from "../feed.ts";
import { server } from "../live/server.ts";
import { colorOf } from "../parts/chart.tsx";
import { go } from "../route.ts";
import { theme } from "../theme.ts";
import { at, COLORS, type Kind, KINDS, kindOf, type Layout, layout, moved, told } from "./cells.ts";

type Palette = Readonly<Record<Kind, string>> & { readonly mark: string };

/**
 * A square for each session, on a canvas. For the keyboard and for a screen reader it is a list box, of which only the
 * option under the cursor is in the page.
 */
export function Squares({ rows }: { rows: readonly SessionRow[] }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const box = useRef<HTMLDivElement>(null);
  const width = useSignal(0);
  const hovered = useSignal(-1);
  const cursor = useSignal(0);
  const focused = useSignal(false);
  const plan = useMemo(() => layout(rows.length, width.value), [rows.length, width.value]);
  const palette = useRef<Palette | null>(null);

  useEffect(() => {
    const element = box.current;
    if (!element) return undefined;
    const sized = new ResizeObserver(() => { width.value = element.clientWidth; });
    sized.observe(element);
    return () => sized.disconnect();
  }, []);
  useEffect(() => { palette.current = box.current ? colors(box.current) : null; }, [theme.value]);
  const marked = focused.value ? Math.min(cursor.value, rows.length - 1) : -1;
  useEffect(() => {
    const frame = requestAnimationFrame(() => {
      if (canvas.current && palette.current && width.value > 0) draw(canvas.current, palette.current, rows, plan, width.value, marked);
    });
    return () => cancelAnimationFrame(frame);
  }, [rows, plan, width.value, theme.value, marked]);

  const open = (place: number) => { const row = rows[place]; if (row && server.looksInto()) go("session", row.id); };
  const over = (event: PointerEvent | MouseEvent) => at(plan, rows.length, event.offsetX, event.offsetY);
  const place = hovered.value >= 0 ? hovered.value : marked;
  const pointed = rows[place];
  const active = rows[Math.max(0, marked)];
  return (
    <div ref={box} class="squares">
      <div
        role="listbox" tabIndex={0} aria-label="Sessions; arrow keys go through them, Enter opens one" aria-activedescendant="active-session"
        onFocus={() => { focused.value = true; }} onBlur={() => { focused.value = false; }}
        onKeyDown={(event) => {
          if (event.key === "Enter" || event.key === " ") open(marked);
          const to = moved(event.key, Math.max(0, marked), plan, rows.length);
          if (to !== null) cursor.value = to;
          if (to !== null || event.key === " ") event.preventDefault();
        }}
      >
        <canvas
          ref={canvas} aria-hidden="true" class={hovered.value >= 0 ? "pointed" : ""}
          onPointerMove={(event) => { hovered.value = over(event); }} onPointerLeave={() => { hovered.value = -1; }}
          onClick={(event) => open(over(event))}
        />
        {active
          ? <div id="active-session" role="option" class="unseen-text" aria-selected="true" aria-posinset={Math.max(0, marked) + 1} aria-setsize={rows.length}>{told(active)}</div>
          : null}
      </div>
      {pointed ? <Tip row={pointed} place={place} plan={plan} width={width.value} /> : null}
    </div>
  );
}

function Tip({ row, place, plan, width }: { row: SessionRow; place: number; plan: Layout; width: number }) {
  const x = (place % plan.columns) * plan.pitch;
  const style = { left: `${Math.max(0, Math.min(x, width - 250))}px`, top: `${(Math.floor(place / plan.columns) + 1) * plan.pitch + 4}px` };
  return <div class="tip" style={style} aria-hidden="true">{told(row)}</div>;
}

function colors(element: HTMLElement): Palette {
  const found = Object.fromEntries(KINDS.map((kind) => [kind, colorOf(COLORS[kind], element)])) as Record<Kind, string>;
  return { ...found, mark: colorOf("--ink", element) };
}

function draw(canvas: HTMLCanvasElement, palette: Palette, rows: readonly SessionRow[], plan: Layout, width: number, marked: number): void {
  const { pitch, side, columns } = plan;
  const height = Math.max(1, plan.rows) * pitch + 2;
  const scale = devicePixelRatio;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  if (!context) return;
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  rows.forEach((row, place) => {
    const kind = kindOf(row);
    square(context, kind, palette[kind], (place % columns) * pitch + 1, Math.floor(place / columns) * pitch + 1, side - 2);
  });
  if (marked >= 0) {
    context.strokeStyle = palette.mark;
    context.lineWidth = 2;
    context.strokeRect((marked % columns) * pitch, Math.floor(marked / columns) * pitch, side, side);
  }
}

/** Full while there is a process, an outline before and after; a failure is crossed. */
function square(context: CanvasRenderingContext2D, kind: Kind, color: string, x: number, y: number, side: number): void {
  context.fillStyle = context.strokeStyle = color;
  if (kind !== "opening" && kind !== "ended" && kind !== "failed") {
    context.fillRect(x, y, side, side);
    return;
  }
  context.lineWidth = 1;
  context.strokeRect(x + 0.5, y + 0.5, side - 1, side - 1);
  if (kind !== "failed") return;
  context.lineWidth = 1.5;
  context.beginPath();
  context.moveTo(x + 0.28 * side, y + 0.28 * side);
  context.lineTo(x + 0.72 * side, y + 0.72 * side);
  context.moveTo(x + 0.72 * side, y + 0.28 * side);
  context.lineTo(x + 0.28 * side, y + 0.72 * side);
  context.stroke();
}
