/** Which flag says the format of which device: the engine speaks of -f, and a command may have more than one device. */
import { resolve } from 'node:path';
import type { LacunaError } from '../../errors/index.js';
import type { Shell } from './shell.js';

/** An error, or what a report says of one. */
type Told = Pick<LacunaError, 'message' | 'device' | 'errno'> & { readonly code: string };

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

/** The message of an error with its code behind it: one code, also where the system has one that the message explains. */
export function withCode(error: Told, shell: Pick<Shell, 'formatFlag'>): string {
  const { code, errno } = error;
  const message = messageOf(error, shell);
  const [explained, bare] = [` (${errno}): `, ` (${errno})`];
  if (message.includes(explained)) return `${message.replace(explained, ': ')} (${code})`;
  if (message.endsWith(bare)) return `${message.slice(0, -bare.length)} (${code}, ${errno})`;
  return `${message} (${code})`;
}

/** The message of an error in the words of the command. */
export function messageOf(error: Told, shell: Pick<Shell, 'formatFlag'>): string {
  return withFormatFlag(error.message, error.device, shell);
}
