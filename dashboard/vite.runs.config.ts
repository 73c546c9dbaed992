import { defineConfig } from "vite";

// The pages of runs as one script and one style: what `muxsim view` puts into its file, and serves.
export default defineConfig({
  build: {
    target: ["chrome123", "firefox120", "safari17.5"],
    outDir: "dist/runs",
    lib: { entry: "src/runs/main.tsx", formats: ["iife"], name: "muxsimRuns", fileName: () => "runs.js", cssFileName: "runs" },
    modulePreload: false,
  },
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
});
