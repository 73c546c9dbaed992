import { signal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";

const shown = signal<{ text: string; x: number; y: number } | null>(null);

interface Pointed {
  onMouseMove: (event: MouseEvent) => void;
  onMouseLeave: () => void;
}

/** What makes an element tell a text beside the pointer that is on it. */
export function tip(text: string): Pointed {
  return {
    onMouseMove: ({ clientX, clientY }) => { shown.value = { text, x: clientX, y: clientY }; },
    onMouseLeave: hideTip,
  };
}

export function hideTip(): void {
  shown.value = null;
}

const AWAY = 14;
const EDGE = 8;

/** The one tip of the page. */
export function Tip() {
  const box = useRef<HTMLDivElement>(null);
  const told = shown.value;
  useLayoutEffect(() => {
    if (!box.current || !told) return;
    const { width, height } = box.current.getBoundingClientRect();
    box.current.style.left = `${Math.min(told.x + AWAY, innerWidth - width - EDGE)}px`;
    box.current.style.top = `${Math.min(told.y + AWAY, innerHeight - height - EDGE)}px`;
  });
  return told ? <div ref={box} class="tip" aria-hidden="true">{told.text}</div> : null;
}
