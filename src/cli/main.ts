#!/usr/bin/env node
/**
 * The first file of the command: it keeps Node's debugger shut, and only then loads the rest. SIGUSR1 would open it on a
 * port of this machine, for everybody who can connect to run code as this user. The listener takes the signal's place.
 */
process.on('SIGUSR1', () => {});

/** Those who debug the command itself ask for it. */
function isDebuggerWanted(): boolean {
  return [...process.execArgv, process.env.NODE_OPTIONS ?? ''].some((text) =>
    text.includes('--inspect'),
  );
}

// A signal that came while Node itself was starting has opened it already, or will do so in a moment: then Node tells its
// workers with this event.
if (process.features.inspector && !isDebuggerWanted()) {
  const { default: inspector } = await import('node:inspector');
  const shut = () => {
    if (inspector.url() !== undefined) inspector.close();
  };
  process.on('internalMessage' as 'message', shut);
  shut();
}

// A socket was handed over, see socket-activation.ts.
if (process.env.LISTEN_PID === String(process.pid)) {
  const { leaveStandardStreams } = await import('./shared-streams.js');
  leaveStandardStreams();
}

await import('./start.js');
