import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";

/** Asks before something is done that cannot be undone; Escape and the first button say no. */
export function Question({ title, yes, onYes, onNo, children }: {
  title: string;
  yes: string;
  onYes: () => void;
  onNo: () => void;
  children: ComponentChildren;
}) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} class="panel question" aria-label={title} onClose={onNo}>
      <h2>{title}</h2>
      {children}
      <p class="answers">
        <button type="button" class="button" onClick={onNo}>Cancel</button>
        <button type="button" class="button danger" onClick={onYes}>{yes}</button>
      </p>
    </dialog>
  );
}
