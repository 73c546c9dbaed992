// Writes expected/: what each scenario gives over stdio, straight from server-everything.

import { mkdir, writeFile } from 'node:fs/promises';

import { EVERYTHING_STDIO, runClient, SCENARIOS } from './run_client.mjs';

await mkdir(new URL('expected/', import.meta.url), { recursive: true });
for (const scenario of SCENARIOS) {
  const { ok, error, result } = await runClient('--scenario', scenario, ...EVERYTHING_STDIO);
  if (!ok) throw new Error(`${scenario}: ${error.message}`);
  const file = new URL(`expected/${scenario}.json`, import.meta.url);
  await writeFile(file, `${JSON.stringify(result, null, 2)}\n`);
}
