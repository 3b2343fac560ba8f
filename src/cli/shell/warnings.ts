import { withFormatFlag } from './format-flags.js';
import type { Shell } from './shell.js';

/** Tells people what they should know although the work was done. */
export function noteWarnings(warnings: readonly string[], shell: Shell): void {
  for (const warning of warnings) {
    // A warning begins with what it is about.
    const { device } = shell.formatFlag ?? {};
    const isOfDevice = device !== undefined && warning.startsWith(`${device} `);
    const text = isOfDevice ? withFormatFlag(warning, device, shell) : warning;
    shell.note(`lacuna: warning: ${text}\n`);
  }
}
