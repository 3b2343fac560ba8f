import type { Command } from 'commander';
import type { BlockDevice } from '../../../block/index.js';
import { LacunaError } from '../../../errors/index.js';
import { Context } from '../../../extent/index.js';
import type { NbdServerAddress } from '../../../serve/index.js';
import {
  addRescueFlag,
  addSourceFlags,
  type BitmapNames,
  FORCE_FLAG,
  FORCE_TEXT,
  insistingOn,
  loadBitmaps,
  openSource,
  parseBitmaps,
  parseCount,
  type SourceFlags,
} from '../../device/index.js';
import { collect, noteWarnings, type Shell } from '../../shell/index.js';
import { formatDuration } from '../../text/index.js';
import { isLoopback, parseBindAddress, removeDeadSocket } from './serve-address.js';
import { addressOf, interrupted, warner } from './serve-loop.js';
import { addPointFlags, type PointFlags, refuseForPoint, servePoint } from './serve-point.js';
import { type TlsFlags, tlsOf } from './serve-tls.js';

interface ServeFlags extends TlsFlags, SourceFlags, PointFlags {
  export: string;
  description?: string;
  readOnly?: boolean;
  writable?: boolean;
  forceInUse?: boolean;
  bitmap?: string[];
  socket?: string;
  bind?: NbdServerAddress;
  connections?: number;
  threads?: number;
  json?: boolean;
}

const EXAMPLES = `
Examples:
  lacuna serve disk.raw
  lacuna serve disk.raw --socket /run/disk.sock --export vda --writable
  lacuna serve disk.raw --bitmap nightly=disk.bitmaps
  lacuna serve disk.raw --bind 0.0.0.0:10809 --tls-cert cert.pem --tls-key key.pem --tls-ca clients.pem
  lacuna serve /backup web/latest --socket /run/web.sock --overlay /var/tmp/web
  nbdcopy -- [ lacuna serve disk.qcow2 ] copy.raw    # with a socket that is handed over (LISTEN_FDS)

Clients may only read, unless --writable is given; qemu-nbd has it the other way round. Without --socket or
--bind it listens on the socket that systemd, or a tool such as nbdcopy, has handed to it, else on
localhost:10809. Clients find a bitmap in the metadata context qemu:dirty-bitmap:NAME. The URI is printed
once clients may connect, but for a socket that was handed over. Of a restore point each disk is an export of its
name, and a disk alone the default export too. What is read is checked, but through an overlay. Ctrl-C, or a request to
terminate, answers what is in flight and ends with exit code 0.`;

/** Tells commander what `lacuna serve` takes, and what it does. */
export function registerServe(command: Command, shell: Shell): void {
  command
    .description('Serves a device over NBD until it is interrupted.')
    .argument('<source>', 'the device to serve, or a repository')
    .argument('[point]', 'a restore point of the repository, such as latest or web/7');
  addPointFlags(addRescueFlag(addSourceFlags(command)))
    .option('--export <name>', 'name of the export; empty is what clients ask for by default', '')
    .option('--description <text>', 'what lists of exports show beside the name')
    .option('--read-only', 'clients may only read (the default)')
    .option('--writable', 'clients may change the device')
    .option(FORCE_FLAG, FORCE_TEXT)
    .option(
      '--bitmap <name[=file]>',
      "serve this dirty bitmap, the source's own or one that a file keeps; may be repeated",
      collect,
    )
    .option('--socket <path>', 'listen on a Unix socket')
    .option('--bind <address:port>', 'listen on a TCP address', parseBindAddress)
    .option('--tls-cert <file>', 'require TLS, with this certificate (PEM)')
    .option('--tls-key <file>', 'its private key (PEM)')
    .option('--tls-ca <file>', 'let in only clients with a certificate of this authority (PEM)')
    .option('--tls-psk <file>', 'require TLS with shared secrets: lines of IDENTITY:HEX')
    .option('--connections <n>', 'clients at a time (default: 100)', parseCount(1))
    .option(
      '--threads <n>',
      'worker threads for clients beyond the first; 0 does without',
      parseCount(0),
    )
    .option('--json', 'print the URI in a JSON document')
    .addHelpText('after', EXAMPLES)
    .action((source: string, point: string | undefined, flags: ServeFlags) => {
      if (point !== undefined) return servePoint({ path: source, point }, flags, shell);
      refuseForPoint(flags);
      return serveCommand(source, flags, shell);
    });
}

async function serveCommand(source: string, flags: ServeFlags, shell: Shell): Promise<void> {
  const address = addressOf(flags);
  if (flags.readOnly && flags.writable) {
    throw new TypeError('--read-only and --writable exclude each other');
  }
  if (flags.forceShare && flags.writable) {
    throw new TypeError('--force-share is for reading only: leave out --writable');
  }
  const bitmaps = parseBitmaps(flags.bitmap ?? []);
  if (flags.writable && bitmaps.ofFiles.size > 0) {
    throw new TypeError('--writable excludes bitmaps of files: writes would be missing from them');
  }
  const tls = await tlsOf(flags);
  const device = await openServed(source, bitmaps, flags, shell.signal);
  try {
    const loaded = await loadBitmaps(bitmaps.ofFiles, device.size);
    noteWarnings(device.warnings, shell);
    if (address.type === 'unix') await removeDeadSocket(address.path);
    const warn = warner(shell);
    const { createServer } = await import('../../../serve/index.js');
    const server = await createServer({
      exports: [{ name: flags.export, description: flags.description, device, bitmaps: loaded }],
      tls,
      maxConnections: flags.connections,
      threads: flags.threads,
      onDeviceError: warn,
      onRefused: warn,
    });
    const bound = await server.listen(address);
    if (tls === undefined && bound !== undefined && !isLoopback(bound)) {
      shell.note('lacuna: warning: without TLS, everybody in reach of this address is a client\n');
    }
    try {
      const uri = bound && server.uri(flags.export);
      const started = performance.now();
      shell.tellProgress = () =>
        `serving ${uri ?? source} for ${formatDuration(performance.now() - started)}`;
      // The program that handed the socket over knows where it is, and standard output may be its own.
      const isExpected = address.type === 'fd' && !flags.json;
      if (!isExpected) await announce({ uri, address: bound }, device, flags, shell);
      await interrupted(shell.signal);
    } finally {
      await server.close();
    }
  } finally {
    await device.close();
  }
}

async function openServed(
  source: string,
  { ofSource }: BitmapNames,
  flags: ServeFlags,
  signal: AbortSignal,
): Promise<BlockDevice> {
  const contexts = ofSource.map((name) => `${Context.dirtyPrefix}${name}`);
  const served = flags.forceInUse ? insistingOn(source, flags.format) : source;
  const device = await openSource(served, flags, { writable: flags.writable, contexts, signal });
  const missing = contexts.find((name) => !device.capabilities.contexts.includes(name));
  const isRefused = flags.writable === true && !device.capabilities.write;
  if (missing === undefined && !isRefused) return device;
  const why = missing === undefined ? undefined : await whyMissing(device, missing);
  await device.close();
  if (isRefused) {
    const message = `${device.name} is read-only here, by its description or by what serves it, so clients cannot change it: leave out --writable`;
    throw new LacunaError('ERR_DEVICE_UNSUPPORTED', message, { device: device.name });
  }
  const name = missing!.slice(Context.dirtyPrefix.length);
  if (why !== undefined) throw why;
  const names = device.capabilities.contexts
    .filter((context) => context.startsWith(Context.dirtyPrefix))
    .map((context) => context.slice(Context.dirtyPrefix.length));
  throw new LacunaError(
    'ERR_CONTEXT_UNKNOWN',
    `${source} has no bitmap ${name} (${names.join(', ') || 'none at all'}); one that a file keeps is named ${name}=FILE`,
  );
}

/** More than that it is not there, where there is more to say. */
async function whyMissing(device: BlockDevice, context: string): Promise<LacunaError | undefined> {
  try {
    await device.extents(0, 0, { contexts: [context] });
  } catch (error) {
    const isMore = error instanceof LacunaError && error.code !== 'ERR_CONTEXT_UNKNOWN';
    return isMore ? error : undefined;
  }
  return undefined;
}

async function announce(
  { uri, address }: { uri?: string; address?: NbdServerAddress },
  device: BlockDevice,
  flags: ServeFlags,
  shell: Shell,
): Promise<void> {
  const readOnly = !device.capabilities.write;
  const { size } = device;
  const where = { uri: uri ?? null, address: address ?? null };
  const document = { ...where, export: flags.export, size, readOnly };
  await shell.print(`${flags.json ? JSON.stringify(document) : uri}\n`);
}
