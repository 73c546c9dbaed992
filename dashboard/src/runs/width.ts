import type { RefObject } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";

/** How wide an element is, in pixels: what is drawn in it keeps its measures. */
export function useWidth<E extends HTMLElement>(first: number, least: number): [RefObject<E | null>, number] {
  const box = useRef<E>(null);
  const [width, setWidth] = useState(first);
  useLayoutEffect(() => {
    const sized = new ResizeObserver(([entry]) => setWidth(Math.max(least, Math.round(entry?.contentRect.width ?? first))));
    if (box.current) sized.observe(box.current);
    return () => sized.disconnect();
  }, []);
  return [box, width];
}
