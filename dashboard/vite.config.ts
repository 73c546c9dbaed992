import { defineConfig } from "vitest/config";

export default defineConfig({
  // Relative, since a proxy may have put a path before it: the page is at `/`, its files are in `/ui/`.
  base: "./",
  build: {
    target: ["chrome123", "firefox120", "safari17.5"], // the first with light-dark() in styles
    assetsDir: "ui",
    // What the content security policy lets in comes from files, never from the page or a data: URL.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  test: { environment: "happy-dom", include: ["test/**/*.test.{ts,tsx}"] },
});
