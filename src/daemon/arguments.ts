import { QmpCommandError } from '../qmp/index.js';
import { blockdevOptions, type SocketAddress, socketAddress } from './blockdev/index.js';
import {
  addExport,
  addNode,
  addObject,
  exportOptions,
  NBD_SERVER,
  objectOptions,
  startServer,
} from './commands/index.js';
import { AllowedFiles, type Control, refusal } from './core/index.js';
import {
  about,
  anything,
  check,
  flag,
  list,
  optional,
  parseArgument,
  struct,
  type Type,
  text,
  union,
  type ValuesOf,
  word,
} from './schema/index.js';

/**
 * What a daemon is started with: the arguments of qemu-storage-daemon, each as a text of its command line (JSON or dotted keys), or as an
 * object.
 */
export interface DaemonArguments {
  /** Limits that nodes share, and what TLS needs, as for `object-add`. */
  readonly object?: readonly (string | object)[];
  /** Nodes, as for `blockdev-add`. */
  readonly blockdev?: readonly (string | object)[];
  /** Where the NBD server listens: `addr.type=unix,addr.path=...`. */
  readonly 'nbd-server'?: string | object;
  /** Exports, as for `block-export-add`. */
  readonly export?: readonly (string | object)[];
  /** Sockets for monitors: `socket,id=...,path=...,server=on,wait=off`. */
  readonly chardev?: readonly (string | object)[];
  /** Which of them are monitors: `chardev=...`. */
  readonly monitor?: readonly (string | object)[];
  /** The short form of the last two: `unix:PATH`. */
  readonly qmp?: readonly string[];
}

const many = optional(list(anything as Type<string | object>));

const ALL: Type<DaemonArguments> = struct('DaemonArguments', {
  object: many,
  blockdev: many,
  'nbd-server': optional(anything as Type<string | object>),
  export: many,
  chardev: many,
  monitor: many,
  qmp: optional(list(text)),
});

const nbdServer = struct('NbdServerOptions', { addr: optional(socketAddress), ...NBD_SERVER });

/** Listening sockets that this process was handed. */
export interface HandedSockets {
  /** The descriptor of that of the NBD server. */
  readonly nbd?: number;
}

interface Chardev {
  readonly id: string;
  readonly path: string;
  readonly server?: boolean;
  readonly wait?: boolean;
}

const chardev: Type<Chardev> = union('ChardevOptions', {
  base: { backend: word('ChardevBackendKind', 'socket'), id: text },
  tag: 'backend',
  branches: () => ({
    socket: { path: text, server: optional(flag), wait: optional(flag) },
  }),
});

const MONITOR = {
  chardev: text,
  id: about(optional(text), 'has no effect'),
  mode: optional(word('MonitorMode', 'control')),
  pretty: about(optional(flag), 'only false'),
} as const;
const monitor = struct('MonitorOptions', MONITOR);

/** Files named on the command line may lie anywhere: `--allow` limits only what clients name. */
const ANY_FILE = new AllowedFiles(undefined);

/** Reads all arguments together. @throws TypeError */
export function checkArguments(value: unknown): DaemonArguments {
  try {
    return check(ALL, value);
  } catch (cause) {
    throw new TypeError((cause as Error).message, { cause });
  }
}

/**
 * Starts what the arguments say, and tells where monitors have to listen.
 *
 * @throws TypeError that names the argument which is wrong; what opening nodes and listening throws.
 */
export async function applyArguments(
  control: Control,
  args: DaemonArguments,
  handed: HandedSockets = {},
): Promise<string[]> {
  const { blockdev = [], 'nbd-server': server, export: exports = [] } = args;
  for (const one of args.object ?? []) {
    await told('object', one, () =>
      addObject(control, read(objectOptions, one, 'qom-type'), ANY_FILE),
    );
  }
  if (server !== undefined || handed.nbd !== undefined) {
    await told('nbd-server', server ?? {}, async () => {
      const { addr, ...others } = read(nbdServer, server ?? {});
      await startServer(control, addressOf(addr, handed.nbd), others, ANY_FILE);
    });
  }
  for (const one of blockdev) {
    await told('blockdev', one, () => addNode(control, read(blockdevOptions, one), ANY_FILE));
  }
  for (const one of exports) {
    await told('export', one, () => addExport(control, read(exportOptions, one, 'type')));
  }
  return monitorPaths(args);
}

/** @throws QmpCommandError */
function addressOf(addr: SocketAddress | undefined, fd: number | undefined) {
  if (fd === undefined) {
    if (addr !== undefined) return addr;
    throw refusal("Parameter 'addr' is missing");
  }
  if (addr === undefined) return { type: 'fd', fd } as const;
  throw refusal('a socket was handed over for it (LISTEN_FDS): leave out addr');
}

async function monitorPaths({
  chardev: sockets = [],
  monitor: monitors = [],
  qmp = [],
}: DaemonArguments) {
  const paths = new Map<string, string>();
  for (const one of sockets) {
    await told('chardev', one, async () => {
      const { id, path, server = false, wait = true } = read(chardev, one, 'backend');
      if (paths.has(id)) throw refusal(`there is a chardev '${id}' already`);
      if (!server || wait)
        throw refusal('say server=on,wait=off: the daemon listens, and does not wait');
      paths.set(id, path);
    });
  }
  const found: string[] = [];
  for (const one of monitors) {
    await told('monitor', one, async () => {
      const { chardev: id, pretty = false }: ValuesOf<typeof MONITOR> = read(
        monitor,
        one,
        'chardev',
      );
      const path = paths.get(id);
      if (path === undefined) throw refusal(`Chardev '${id}' not found`);
      if (pretty) throw refusal('pretty is not offered here: leave it out');
      found.push(path);
    });
  }
  return [...found, ...qmp.map(qmpPath)];
}

function qmpPath(address: string): string {
  const [, path] = /^unix:([^,]+)$/.exec(address) ?? [];
  if (path !== undefined) return path;
  throw new TypeError(`--qmp ${address}: say unix:PATH`);
}

function read<T>(type: Type<T>, argument: string | object, implied?: string): T {
  return typeof argument === 'string'
    ? parseArgument(type, argument, implied)
    : check(type, argument);
}

/** Of several arguments it must be clear which one is wrong. */
async function told(
  option: string,
  argument: string | object,
  work: () => Promise<void>,
): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const said = typeof argument === 'string' ? argument : JSON.stringify(argument);
    const message = `--${option} ${said}: ${error.message}`;
    // What is said wrong is misuse; what the world does stays what it is.
    if (error instanceof QmpCommandError) throw new TypeError(message, { cause: error });
    error.message = message;
    throw error;
  }
}
