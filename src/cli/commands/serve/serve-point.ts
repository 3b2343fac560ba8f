/** Serves a restore point of a repository. */
import type { Command } from 'commander';
import type { ServedPoint } from '../../../repository/index.js';
import { collect, noteWarnings, type Shell } from '../../shell/index.js';
import { isLoopback, removeDeadSocket } from './serve-address.js';
import { addressOf, interrupted, type ListenFlags, warner } from './serve-loop.js';
import { type TlsFlags, tlsOf } from './serve-tls.js';

export interface PointFlags {
  disk?: string[];
  overlay?: string;
  discard?: boolean;
}

/** Adds the flags that are for restore points. */
export function addPointFlags(command: Command): Command {
  return command
    .option('--disk <name>', 'of a restore point, only this disk; may be repeated', collect)
    .option(
      '--overlay <folder>',
      'let clients write over a restore point, into images in this folder',
    )
    .option('--discard', 'let clients write over a restore point, and throw that away at the end');
}

interface ServePointFlags extends PointFlags, TlsFlags, ListenFlags {
  export: string;
  writable?: boolean;
  bitmap?: string[];
  format?: string;
  forceShare?: boolean;
  rescue?: boolean;
  connections?: number;
  json?: boolean;
}

/** Refuses what is for restore points only. */
export function refuseForPoint({ disk, overlay, discard }: PointFlags): void {
  if (disk === undefined && overlay === undefined && !discard) return;
  throw new TypeError(
    '--disk, --overlay and --discard are for a restore point: name it behind the repository',
  );
}

/** Serves until it is interrupted. */
export async function servePoint(
  { path, point }: { path: string; point: string },
  flags: ServePointFlags,
  shell: Shell,
): Promise<void> {
  const address = addressOf(flags);
  checkFlags(flags);
  const tls = await tlsOf(flags);
  const warn = warner(shell);
  const { Repository } = await import('../../../repository/index.js');
  const served = await Repository.open(path).serve({
    point,
    disks: flags.disk,
    overlay: overlayOf(flags),
    server: { tls, maxConnections: flags.connections, onDeviceError: warn, onRefused: warn },
  });
  try {
    if (address.type === 'unix') await removeDeadSocket(address.path);
    const bound = await served.server.listen(address);
    if (tls === undefined && bound !== undefined && !isLoopback(bound)) {
      noteWarnings(['without TLS, everybody in reach of this address is a client'], shell);
    }
    shell.tellProgress = () => `serving ${served.point.machine}/${served.point.number}`;
    if (address.type !== 'fd' || flags.json) await announce(served, bound, flags, shell);
    await interrupted(shell.signal);
  } finally {
    await served.close();
  }
}

function overlayOf({ discard, overlay }: PointFlags) {
  if (discard) return 'discard';
  return overlay === undefined ? undefined : { folder: overlay };
}

function checkFlags(flags: ServePointFlags): void {
  const others = {
    '--writable (--overlay and --discard let clients write)': flags.writable,
    '--export': flags.export !== '',
    '--bitmap': flags.bitmap,
    '--format': flags.format,
    '--force-share': flags.forceShare,
    '--rescue': flags.rescue,
  };
  const other = Object.entries(others).find(([, value]) => value);
  if (other !== undefined) throw new TypeError(`a restore point is served without ${other[0]}`);
  if (flags.overlay === undefined || !flags.discard) return;
  throw new TypeError(
    '--overlay keeps what is written, and --discard throws it away: leave out one',
  );
}

async function announce(
  { point, disks, server }: ServedPoint,
  address: unknown,
  { json, overlay, discard }: ServePointFlags,
  shell: Shell,
): Promise<void> {
  const { machine, number } = point;
  const isBound = address !== undefined;
  const exports = disks.map((name) => ({ name, uri: isBound ? server.uri(name) : null }));
  const readOnly = overlay === undefined && !discard;
  const document = { machine, point: number, address: address ?? null, exports, readOnly };
  const lines = exports.map(({ uri }) => `${uri}\n`);
  await shell.print(json ? `${JSON.stringify(document)}\n` : lines.join(''));
}
