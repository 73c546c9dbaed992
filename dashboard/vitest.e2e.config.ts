import { defineConfig } from "vitest/config";

// `npm run pictures` makes those of the README in the same way.
export default defineConfig(({ mode }) => ({
  test: { include: [mode === "pictures" ? "e2e/*.pictures.ts" : "e2e/*.e2e.ts"], testTimeout: 120_000, hookTimeout: 120_000, fileParallelism: false },
}));
