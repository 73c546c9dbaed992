/** Debian's Chromium, with an empty profile, driven by Playwright. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type BrowserContext, chromium, type Page } from "playwright-core";

const FLAGS = [
  "--no-sandbox", // it does not start as root otherwise, and opens nothing but our own pages
  "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
  "--disable-sync", "--disable-crash-reporter", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
];
/** Milliseconds that anything may take on a machine that is busy. */
export const DEADLINE = 60_000;

export interface Look {
  readonly theme?: "light" | "dark";
  readonly width?: number;
  readonly height?: number;
}

export interface Browser {
  /** A page with nothing of another one's; what its console says of errors is in `complaints`. */
  open: (url: string, look?: Look) => Promise<{ page: Page; complaints: string[] }>;
  close: () => Promise<void>;
}

export async function launch(): Promise<Browser> {
  const profile = await mkdtemp(join(tmpdir(), "muxsim-chromium-"));
  const context = await chromium.launchPersistentContext(profile, { executablePath: "/usr/bin/chromium", headless: true, args: FLAGS });
  const browser = context.browser();
  const others: BrowserContext[] = [];
  return {
    open: async (url, { theme = "light", width = 1280, height = 900 } = {}) => {
      const look = { colorScheme: theme, viewport: { width, height } };
      const its = browser ? await browser.newContext(look) : context;
      others.push(its);
      const page = await its.newPage();
      page.setDefaultTimeout(DEADLINE);
      const complaints: string[] = [];
      page.on("console", (message) => { if (message.type() === "error") complaints.push(message.text()); });
      page.on("pageerror", (error) => complaints.push(String(error)));
      await page.goto(url);
      return { page, complaints };
    },
    close: async () => {
      await Promise.all(others.map((one) => one.close()));
      await context.close();
      await rm(profile, { recursive: true, force: true });
    },
  };
}
