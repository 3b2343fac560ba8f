/** What a node is made of, as `blockdev-add` and `--blockdev` say it. */
import {
  about,
  alternate,
  count,
  flag,
  nothing,
  optional,
  size,
  struct,
  type Type,
  text,
  union,
  word,
} from '../schema/index.js';

/** A checked description; its other members depend on the driver. */
export interface BlockdevOptions {
  readonly driver: string;
  readonly 'node-name'?: string;
  readonly 'read-only'?: boolean;
  readonly [key: string]: unknown;
}

export const socketAddress = union<SocketAddress>('SocketAddress', {
  base: { type: word('SocketAddressType', 'inet', 'unix') },
  tag: 'type',
  branches: () => ({
    unix: { path: text },
    inet: { host: text, port: text },
  }),
});

export type SocketAddress =
  | { readonly type: 'unix'; readonly path: string }
  | { readonly type: 'inet'; readonly host: string; readonly port: string };

const reference: Type<BlockdevOptions | string> = alternate('BlockdevRef', () => [
  blockdevOptions,
  text,
]);
const referenceOrNull: Type<BlockdevOptions | string | null> = alternate(
  'BlockdevRefOrNull',
  () => [blockdevOptions, text, nothing],
);

const cache = struct('BlockdevCacheOptions', {
  direct: optional(flag),
  'no-flush': optional(flag),
});

const bitmap = struct('BlockDirtyBitmap', { node: text, name: text });

const file = {
  filename: about(text, 'the file, or the block device'),
  locking: optional(word('OnOffAuto', 'auto', 'on', 'off')),
  aio: about(
    optional(word('BlockdevAioOptions', 'threads', 'native', 'io_uring')),
    'has no effect',
  ),
};

const filter = { file: about(reference, 'what it lies above') };

const disks = {
  size: about(optional(size), 'bytes; default 1 GiB'),
  'latency-ns': about(optional(count), 'only 0'),
  'read-zeroes': about(optional(flag), 'has no effect: it always reads as zero'),
};

const BRANCHES = {
  file,
  host_device: file,
  raw: filter,
  qcow2: {
    file: about(reference, 'what holds the image'),
    backing: about(
      optional(referenceOrNull),
      'what lies below it; default: what the image names, if that lies in its own folder; null for nothing',
    ),
    'data-file': optional(reference),
  },
  throttle: {
    ...filter,
    'throttle-group': about(text, 'the object whose limits hold'),
  },
  'null-co': disks,
  'null-aio': disks,
  memory: { size: about(size, 'bytes; it is empty at first, and gone at the end') },
  nbd: {
    server: socketAddress,
    export: about(optional(text), 'default: the one without a name'),
    'tls-creds': about(optional(text), 'an object with the endpoint client: TLS is used then'),
    'tls-hostname': about(
      optional(text),
      'the name that the certificate must bear; default: the host, or localhost',
    ),
    'reconnect-delay': about(optional(count), 'seconds for which a lost connection is made again'),
    'open-timeout': about(optional(count), 'seconds for which connecting is tried'),
  },
  'copy-before-write': {
    ...filter,
    target: about(reference, 'where its old content goes'),
    bitmap: about(optional(bitmap), 'only what is dirty there is kept'),
    'on-cbw-error': optional(word('OnCbwError', 'break-guest-write', 'break-snapshot')),
    'cbw-timeout': about(optional(count), 'seconds; 0 for no limit'),
  },
  'snapshot-access': { file: about(reference, 'the copy-before-write') },
  'copy-on-read': {
    ...filter,
    bottom: about(optional(text), 'the lowest node that is copied from'),
  },
} as const;

export const DRIVERS = Object.keys(BRANCHES);

export const blockdevOptions: Type<BlockdevOptions> = union('BlockdevOptions', {
  base: {
    driver: word('BlockdevDriver', ...DRIVERS),
    'node-name': optional(text),
    discard: about(optional(word('BlockdevDiscardOptions', 'ignore', 'unmap')), 'has no effect'),
    cache: about(optional(cache), 'only what QEMU does without it'),
    'read-only': about(optional(flag), 'default false'),
    'auto-read-only': about(optional(flag), 'has no effect'),
    'force-share': about(optional(flag), 'read it although others write it'),
    'detect-zeroes': about(
      optional(word('BlockdevDetectZeroesOptions', 'off', 'on', 'unmap')),
      'only off',
    ),
  },
  tag: 'driver',
  branches: () => BRANCHES,
});
