// The command line of client.mjs.

import { parseArgs } from 'node:util';

import { SCENARIOS } from './scenarios.mjs';

export const USAGE = `usage: node client.mjs --scenario ${Object.keys(SCENARIOS).join('|')}
         --transport http|sse|stdio  (--url URL | --command JSON)  [--sdk v1|v2] [--mode legacy|auto|REVISION]
         [--tool NAME --arguments JSON] [--meta JSON] [--headers JSON] [--keep] [--timeout SECONDS]
  --command    '["program", "argument"]' for stdio
  --mode       of v2: the handshake (legacy), whatever the server offers (auto), or one revision and no other
  --tool       of play: the tool to call, once for each object of --arguments ('[{"direction": "up"}]')
  --meta       of play: the _meta of each call
  --headers    '{"Authorization": "Bearer …"}' for http and sse
  --keep       do not end the session (http: no DELETE)`;

/** The command line cannot be used. */
export class BadOption extends Error {}

/** @returns what client.mjs and the scenarios read, with every JSON value parsed */
export function readOptions(argv) {
  const values = readArguments(argv);
  const options = {
    ...values,
    command: readJson('command', values.command),
    arguments: readJson('arguments', values.arguments) ?? [],
    meta: readJson('meta', values.meta),
    headers: readJson('headers', values.headers) ?? {},
    timeout: Number(values.timeout),
  };
  check(options);
  return options;
}

function readArguments(args) {
  const text = { type: 'string' };
  try {
    return parseArgs({
      args,
      options: {
        scenario: text, transport: text, url: text, command: text, tool: text, arguments: text, meta: text,
        headers: text, keep: { type: 'boolean', default: false },
        sdk: { ...text, default: 'v1' }, mode: { ...text, default: 'legacy' },
        timeout: { ...text, default: '30' },
      },
    }).values;
  } catch (error) {
    throw new BadOption(error.message);
  }
}

function readJson(name, value) {
  try {
    return value === undefined ? undefined : JSON.parse(value);
  } catch (error) {
    throw new BadOption(`--${name} is not JSON: ${error.message}`);
  }
}

function check({ scenario, transport, url, command, sdk, mode, tool, timeout }) {
  const wrong = [
    [!(scenario in SCENARIOS), `no scenario '${scenario}'`],
    [!['http', 'sse', 'stdio'].includes(transport), `no transport '${transport}'`],
    [!['v1', 'v2'].includes(sdk), `no sdk '${sdk}'`],
    [sdk === 'v1' && mode !== 'legacy', 'v1 knows only --mode legacy'],
    [transport === 'stdio' && !Array.isArray(command), 'stdio needs --command'],
    [transport !== 'stdio' && !URL.canParse(url), `${transport} needs --url`],
    [scenario === 'play' && !tool, 'play needs --tool'],
    [!(timeout > 0), '--timeout must be a number of seconds'],
  ].find(([isWrong]) => isWrong);
  if (wrong) throw new BadOption(wrong[1]);
}
