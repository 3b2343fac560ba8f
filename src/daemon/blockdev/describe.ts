import type { NodeDescription } from '../../graph/index.js';
import { type AllowedFiles, type Objects, refusal } from '../core/index.js';
import type { BlockdevOptions, SocketAddress } from './options.js';

/** What a description may name beside nodes. */
interface Named {
  readonly files: AllowedFiles;
  readonly objects: Objects;
}

/** Turns what a client has said into the description of a node. */
type Translate = (own: BlockdevOptions, named: Named) => object;

const GIB = 2 ** 30;

/** What each driver is called here, and the keys that differ. Those without an entry are the same. */
const TRANSLATED: Readonly<Record<string, Translate>> = {
  file: fileOf,
  host_device: fileOf,
  raw: rawOf,
  'null-co': nullOf,
  'null-aio': nullOf,
  throttle: throttleOf,
  nbd: nbdOf,
};

/** Members whose values are nodes. */
export const CHILDREN: readonly string[] = ['file', 'backing', 'data-file', 'target'];

/**
 * The description of a node in the graph.
 *
 * @throws QmpCommandError for what is not offered, and for files that clients may not use.
 */
export function describe(given: BlockdevOptions, named: Named): NodeDescription {
  const { discard: _, 'auto-read-only': __, aio: ___, ...own } = checked(given);
  const described = Object.fromEntries(
    Object.entries(own).map(([key, value]) => {
      const isNode = CHILDREN.includes(key) && typeof value === 'object' && value !== null;
      return [key, isNode ? describe(value as BlockdevOptions, named) : value];
    }),
  ) as BlockdevOptions;
  const translate = TRANSLATED[given.driver];
  return (translate === undefined ? described : translate(described, named)) as NodeDescription;
}

function checked({ cache, 'detect-zeroes': detect, ...own }: BlockdevOptions): BlockdevOptions {
  for (const [key, isOn] of Object.entries((cache as object | undefined) ?? {})) {
    if (isOn) throw refusal(`cache.${key} is not offered here: leave it out`);
  }
  if (detect === undefined || detect === 'off') return own;
  throw refusal(`detect-zeroes is not offered for nodes: leave it out`);
}

function fileOf({ driver: _, filename, ...own }: BlockdevOptions, { files }: Named): object {
  return { ...own, driver: 'file', filename: files.check(filename as string) };
}

/** A file is a raw disk by itself; over a node it is a filter that does nothing. */
function rawOf({ driver: _, file, ...own }: BlockdevOptions): object {
  if (typeof file === 'string' || 'node-name' in (file as object)) {
    return { ...own, driver: 'throttle', file };
  }
  return { ...(file as object), ...own };
}

function nullOf(own: BlockdevOptions): object {
  const { driver: _, size = GIB, 'latency-ns': latency = 0, 'read-zeroes': __, ...rest } = own;
  if (latency !== 0) throw refusal('latency-ns is not offered here: leave it out');
  return { ...rest, driver: 'null', size };
}

function throttleOf({ 'throttle-group': id, ...own }: BlockdevOptions, { objects }: Named): object {
  return { ...own, group: objects.group(id as string).memory };
}

function nbdOf(
  { server, 'tls-creds': id, 'tls-hostname': hostname, ...own }: BlockdevOptions,
  { files, objects }: Named,
): object {
  const described = { ...own, server: serverOf(server as never, files) };
  if (id === undefined) {
    if (hostname === undefined) return described;
    throw refusal('tls-hostname requires tls-creds');
  }
  const tls = objects.credentials(id as string, 'client');
  const name = tls.type === 'x509' && hostname !== undefined ? { hostname } : {};
  return { ...described, tls: { ...tls, ...name } };
}

function serverOf(server: SocketAddress, files: AllowedFiles): object {
  if (server.type === 'unix') return { type: 'unix', path: files.check(server.path) };
  return { ...server, port: portOf(server) };
}

/** @throws QmpCommandError */
export function portOf({ port }: Extract<SocketAddress, { type: 'inet' }>): number {
  const number = Number(port);
  if (/^\d+$/.test(port) && number <= 65535) return number;
  throw refusal(`Parameter 'port' expects a port number, not '${port}'`);
}
