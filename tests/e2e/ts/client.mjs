// A real client of the TypeScript SDK, first or second generation, for the end-to-end tests. Prints one line
// of JSON, {"ok", "client", "result" | "error", "complaints"}; exit status 0, 1 (failed) or 2 (bad options).

import { Heard } from './heard.mjs';
import { BadOption, readOptions, USAGE } from './options.mjs';
import { SCENARIOS } from './scenarios.mjs';

const CLOSE_LIMIT = 8_000; // ms; the SDKs give a stdio child 2 s, then SIGTERM, 2 s, then SIGKILL

try {
  const report = await runScenario(readOptions(process.argv.slice(2)));
  process.stdout.write(`${JSON.stringify(report)}\n`, () => process.exit(report.ok ? 0 : 1));
} catch (error) {
  if (!(error instanceof BadOption)) throw error;
  console.error(`${error.message}\n\n${USAGE}`);
  process.exitCode = 2;
}

async function runScenario(options) {
  const { sdk, transport, mode, scenario } = options;
  const report = { ok: false, client: { scenario, sdk, transport, mode }, complaints: [] };
  let session;
  try {
    const { connect } = await import(`./sdk_${sdk}.mjs`);
    const work = async () => {
      const abilities = SCENARIOS[scenario].client();
      const heard = new Heard();
      session = await connect(options, overheard(abilities, heard), {
        onNotification: (notification) => heard.add(notification),
        onError: (error) => report.complaints.push(error.message),
      });
      Object.assign(report.client, { revision: session.revision(), session: session.sessionId() });
      return SCENARIOS[scenario].run({ session, heard, abilities, options });
    };
    report.result = await within(options.timeout * 1000, work(), scenario);
    if (!options.keep) await within(CLOSE_LIMIT, session.terminate(), 'ending the session');
    report.ok = true;
  } catch (error) {
    const { name, code, message, cause } = error;
    report.error = { name, code, message, cause: cause?.message };
  }
  await within(CLOSE_LIMIT, session?.close(), 'closing')
    .catch((error) => report.complaints.push(error.message));
  return report;
}

/** The same abilities, with each request of the server written down before it is answered. */
function overheard({ capabilities, answers }, heard) {
  const entries = Object.entries(answers).map(([method, answer]) => [method, (params) => {
    heard.add({ method, params });
    return answer(params ?? {});
  }]);
  return { capabilities, answers: Object.fromEntries(entries) };
}

function within(milliseconds, promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    const error = new Error(`${what}: not done within ${milliseconds / 1000} s`);
    timer = setTimeout(() => reject(error), milliseconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
