// Both SDKs name and build their transports alike.

/**
 * @param options of the command line
 * @param {{http: Function, sse: Function, stdio: Function}} classes of one SDK
 */
export function makeTransport({ transport, url, command, headers }, classes) {
  if (transport === 'stdio') return new classes.stdio({ command: command[0], args: command.slice(1) });
  return new classes[transport](new URL(url), { requestInit: { headers } });
}
