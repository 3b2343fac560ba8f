#!/usr/bin/env node
import { keepCompiledCode } from './compiled-code.js';

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

/**
 * What shuts the debugger, where it is open. Node's module for it takes a tenth of what Node takes to start, because it
 * loads worker threads; the function that Node's own command `node inspect` uses is there at once.
 */
async function debuggerShutter(): Promise<() => void> {
  const { _debugEnd: end } = process as { _debugEnd?: () => void };
  if (end !== undefined) return end;
  const { default: inspector } = await import('node:inspector');
  return () => {
    if (inspector.url() !== undefined) inspector.close();
  };
}

// A signal that came while Node itself was starting has opened it already, or will do so in a moment: then Node tells its
// workers with this event.
if (process.features.inspector && !isDebuggerWanted()) {
  const shut = await debuggerShutter();
  process.on('internalMessage' as 'message', shut);
  shut();
}

// A socket was handed over, see socket-activation.ts.
if (process.env.LISTEN_PID === String(process.pid)) {
  const { leaveStandardStreams } = await import('./shared-streams.js');
  leaveStandardStreams();
}

keepCompiledCode();
await import('./start.js');
