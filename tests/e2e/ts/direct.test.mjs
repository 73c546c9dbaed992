// Every scenario with no proxy between: what both SDKs get from server-everything itself, by each transport.
// The end-to-end tests ask for the same results through muxsim.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { EVERYTHING_STDIO, expected, runClient, SCENARIOS, serveEverything } from './run_client.mjs';

const CLIENTS = [['v1', 'legacy'], ['v2', 'legacy'], ['v2', 'auto']];
const LIMIT = { timeout: 60_000 };

const servers = {};

before(async () => {
  servers.http = await serveEverything('streamableHttp');
  servers.sse = await serveEverything('sse');
});

after(() => Promise.all(Object.values(servers).map((server) => server.stop())));

const where = (transport) =>
  transport === 'stdio' ? EVERYTHING_STDIO : ['--transport', transport, '--url', servers[transport].url];

for (const scenario of SCENARIOS) {
  for (const [sdk, mode] of CLIENTS) {
    for (const transport of ['stdio', 'http', 'sse']) {
      test(`${scenario} gives ${sdk} in ${mode} mode by ${transport} what was recorded`, LIMIT, async () => {
        const who = ['--scenario', scenario, '--sdk', sdk, '--mode', mode];
        const report = await runClient(...who, ...where(transport));
        assert.equal(report.error, undefined);
        assert.equal(report.client.revision, '2025-11-25');
        assert.deepEqual(report.result, await expected(scenario));
      });
    }
  }
}
