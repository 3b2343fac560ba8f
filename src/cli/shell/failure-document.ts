/** A failure as a program reads it; what went wrong stays on standard error too. */
import { LacunaError } from '../../errors/index.js';
import { messageOf } from './format-flags.js';
import { inCommandWords } from './option-names.js';
import type { Shell } from './shell.js';

/** Prints the last document of those that `--json` asks for, where there is room for it. */
export async function printFailure(error: unknown, shell: Shell): Promise<void> {
  if (shell.failureDocument === undefined) return;
  const document = { type: 'error', ...describeFailure(error, shell), ...shell.failureDocument };
  // A reader that has gone, or a user who interrupts, learns it from the exit code.
  await shell.print(`${JSON.stringify(document)}\n`).catch(() => {});
}

function describeFailure(error: unknown, shell: Shell): object {
  if (!(error instanceof Error)) return { message: String(error) };
  if (!(error instanceof LacunaError)) return { message: inCommandWords(error) };
  const { code, retryable, device, offset, length, errno } = error;
  return { code, message: messageOf(error, shell), retryable, device, offset, length, errno };
}
