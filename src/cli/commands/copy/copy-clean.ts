/** `lacuna copy --clean TARGET`: removes what copies to a target have left that were killed or given up. */
import { cleanTarget } from '../../../copy/index.js';
import type { Shell } from '../../shell/index.js';
import { formatBytes } from '../../text/index.js';
import type { CopyFlags } from './copy-flags.js';

const ALLOWED: readonly string[] = ['clean', 'outputFormat', 'json', 'flush'];

/** @throws TypeError for what belongs to a copy; LacunaError as `cleanTarget`. */
export async function cleanCommand(
  names: readonly string[],
  flags: CopyFlags,
  shell: Shell,
): Promise<void> {
  const odd = Object.keys(flags).find((name) => !ALLOWED.includes(name));
  if (names.length !== 1 || odd !== undefined) {
    throw new TypeError(
      'copy --clean takes the name of one target, and of other options only -O and --json',
    );
  }
  const { removed, kept } = cleanTarget(names[0], flags.outputFormat);
  if (flags.json) {
    return await shell.print(`${JSON.stringify({ type: 'clean', removed, kept })}\n`);
  }
  for (const { path, bytes } of removed) {
    await shell.print(`Removed ${path} (${formatBytes(bytes)}).\n`);
  }
  for (const { path, bytes, isInUse } of kept) {
    const why = isInUse
      ? 'it is in use'
      : 'a copy with --resume may go on with it; if none will, remove it yourself';
    await shell.print(`Kept ${path} (${formatBytes(bytes)}): ${why}.\n`);
  }
  if (removed.length + kept.length === 0) {
    await shell.print(`No copy has left an unfinished file of ${names[0]}.\n`);
  }
}
