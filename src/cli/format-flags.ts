/** Which flag says the format of which device: the engine speaks of -f, and a command may have more than one device. */
import { resolve } from 'node:path';
import type { LacunaError } from '../errors/index.js';
import type { Shell } from './shell.js';

/** Notes that another flag than -f says the format of this device, unless it is the first one as well. */
export function setFormatFlag(
  shell: Shell,
  flag: '-F' | '-O',
  device: string,
  first?: string,
): void {
  if (first !== undefined && resolve(first) === resolve(device)) return;
  shell.formatFlag = { flag, device: resolve(device) };
}

/** A message of the engine about `device`, with the flag that this command has for its format. */
export function withFormatFlag(
  message: string,
  device: string | undefined,
  { formatFlag }: Pick<Shell, 'formatFlag'>,
): string {
  if (formatFlag === undefined || device === undefined) return message;
  if (resolve(device) !== formatFlag.device) return message;
  return message.replace(/(?<=[ (])-f(?= (raw|qcow2)\b)/g, formatFlag.flag);
}

/** The message of an error in the words of the command. */
export function messageOf(error: LacunaError, shell: Pick<Shell, 'formatFlag'>): string {
  return withFormatFlag(error.message, error.device, shell);
}
