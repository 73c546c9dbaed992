import { useEffect } from "preact/hooks";

/** Keys and what each does, while the caller is on the page and nobody writes into a field. */
export function useKeys(keys: Readonly<Record<string, () => void>>): void {
  useEffect(() => {
    const press = (event: KeyboardEvent): void => {
      const at = event.target instanceof Element ? event.target : document.body;
      const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(at.tagName);
      if (typing && event.key === "Escape" && at instanceof HTMLElement) at.blur();
      const action = keys[event.key];
      if (!action || typing || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === " " && /^(BUTTON|SUMMARY|A)$/.test(at.tagName)) return;
      event.preventDefault();
      action();
    };
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  });
}
