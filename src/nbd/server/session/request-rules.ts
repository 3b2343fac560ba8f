/** Which requests an export takes. What it does not take is answered with an error; the connection lives on. */
import {
  Command,
  CommandFlag,
  type ErrnoName,
  ExportFlag,
  type RequestHeader,
} from '../../wire/index.js';

export interface Refusal {
  readonly errno: ErrnoName;
  readonly text: string;
}

export interface RequestRules {
  readonly size: number;
  /** Transmission flags, as the client was told. */
  readonly flags: number;
  readonly maxPayload: number;
  readonly extended: boolean;
  /** Granted metadata contexts. */
  readonly contextCount: number;
}

/** Command flags that each command knows. FUA may come with all of them, once it was advertised. */
const KNOWN_FLAGS: Readonly<Record<number, number>> = {
  [Command.read]: CommandFlag.dontFragment,
  [Command.write]: CommandFlag.payloadLength,
  [Command.flush]: 0,
  [Command.trim]: 0,
  [Command.cache]: 0,
  [Command.writeZeroes]: CommandFlag.noHole | CommandFlag.fastZero,
  [Command.blockStatus]: CommandFlag.requestOne | CommandFlag.payloadLength,
};

const CHANGES = new Set<number>([Command.write, Command.trim, Command.writeZeroes]);

/** Commands that need a transmission flag. */
const NEEDED: Readonly<Record<number, number>> = {
  [Command.flush]: ExportFlag.flush,
  [Command.trim]: ExportFlag.trim,
  [Command.cache]: ExportFlag.cache,
  [Command.writeZeroes]: ExportFlag.writeZeroes,
};

/** Why a request is refused before it reaches the device; undefined where it is fine. */
export function refusalOf(request: RequestHeader, rules: RequestRules): Refusal | undefined {
  const { command, flags } = request;
  const known = KNOWN_FLAGS[command];
  if (known === undefined) return { errno: 'EINVAL', text: `command ${command} is not known` };
  if ((flags & ~allowedFlags(known, rules)) !== 0) {
    return {
      errno: 'EINVAL',
      text: `flags 0x${flags.toString(16)} are not for command ${command}`,
    };
  }
  if (CHANGES.has(command) && (rules.flags & ExportFlag.readOnly) !== 0) {
    return { errno: 'EPERM', text: 'the export is read-only' };
  }
  const needed = NEEDED[command] ?? 0;
  if ((rules.flags & needed) !== needed) {
    return { errno: 'EINVAL', text: `command ${command} was not offered` };
  }
  return command === Command.flush ? undefined : refusalOfRange(request, rules);
}

function allowedFlags(known: number, { flags, extended }: RequestRules): number {
  let allowed = known;
  if (!extended) allowed &= ~CommandFlag.payloadLength;
  if ((flags & ExportFlag.fua) !== 0) allowed |= CommandFlag.fua;
  if ((flags & ExportFlag.dontFragment) === 0) allowed &= ~CommandFlag.dontFragment;
  if ((flags & ExportFlag.fastZero) === 0) allowed &= ~CommandFlag.fastZero;
  return allowed;
}

function refusalOfRange(request: RequestHeader, rules: RequestRules): Refusal | undefined {
  const { command, offset, length } = request;
  const payload =
    command === Command.read || command === Command.write || command === Command.cache;
  if (payload && length > rules.maxPayload) {
    return { errno: 'EINVAL', text: `${length} bytes are more than ${rules.maxPayload}` };
  }
  if (command === Command.blockStatus) {
    if (rules.contextCount === 0)
      return { errno: 'EINVAL', text: 'no metadata context was agreed on' };
    // The range of one with a payload is in the payload.
    if ((request.flags & CommandFlag.payloadLength) !== 0) return undefined;
    if (length === 0) return { errno: 'EINVAL', text: 'the status of no bytes' };
  }
  if (length <= rules.size - offset) return undefined;
  const errno = CHANGES.has(command) ? 'ENOSPC' : 'EINVAL';
  return { errno, text: `${length} bytes at ${offset} reach behind the end, ${rules.size}` };
}
