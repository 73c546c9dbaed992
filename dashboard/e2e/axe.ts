import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import type { AxeResults } from "axe-core";
import type { Page } from "playwright-core";

const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

/** What axe finds on a page that keeps somebody from using it, and how much wider than its window the page is. */
export async function amiss(page: Page): Promise<string[]> {
  await page.evaluate(await readFile(AXE, "utf8"));
  const { violations } = await page.evaluate<AxeResults>("axe.run()");
  const wider = await page.evaluate<number>("document.documentElement.scrollWidth - innerWidth");
  const found = violations.filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 120)).slice(0, 3).join(" ")}`);
  return [...found, ...(wider > 0 ? [`wider by ${wider}`] : [])];
}
