import { promisify } from 'node:util';
import { deflateRaw } from 'node:zlib';
import type { Compression } from '../../../../qcow2/index.js';
import { ShrinkTest, zstdInThreads } from '../../../../wasm/index.js';

/**
 * Compresses one cluster.
 *
 * @returns fewer bytes than the cluster has; undefined where it does not shrink, or hardly.
 */
export type Compress = (cluster: Uint8Array) => Promise<Uint8Array | undefined>;

/** Readers of the format inflate with this window, and no larger one. */
const WINDOW_BITS = 12;
const MEMORY_LEVEL = 9;
const ZSTD_LEVEL = 3;

/** The compressor of an image; the one for zstd is loaded when an image needs it. */
export async function compressorFor(compression: Compression): Promise<Compress> {
  return compression === 'deflate' ? deflate : await zstdCompressor();
}

const deflateAsync = promisify(deflateRaw);

let shrinkTest: ShrinkTest | undefined;

/** Runs in the thread pool of Node, if there is any hope that the cluster shrinks. */
async function deflate(cluster: Uint8Array): Promise<Uint8Array | undefined> {
  shrinkTest ??= new ShrinkTest();
  if (!shrinkTest.mayShrink(cluster)) return undefined;
  const options = {
    windowBits: WINDOW_BITS,
    memLevel: MEMORY_LEVEL,
    // One trip to the pool, and an end to what does not shrink.
    chunkSize: Math.max(64, cluster.length),
    maxOutputLength: cluster.length - 1,
  };
  try {
    return await deflateAsync(cluster, options);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') return undefined;
    throw error;
  }
}

let zstd: Promise<Compress> | undefined;

function zstdCompressor(): Promise<Compress> {
  zstd ??= nodeZstd().then((compress) => compress ?? zstdOfOurs);
  return zstd;
}

type ZstdCompress = (
  bytes: Uint8Array,
  done: (error: Error | null, result: Uint8Array) => void,
) => void;

/** In the thread pool, where this Node has it. */
async function nodeZstd(): Promise<Compress | undefined> {
  const { zstdCompress } = (await import('node:zlib')) as unknown as {
    zstdCompress?: ZstdCompress;
  };
  if (zstdCompress === undefined) return undefined;
  const compress = promisify(zstdCompress);
  return async (cluster) => shorter(await compress(cluster), cluster);
}

async function zstdOfOurs(cluster: Uint8Array): Promise<Uint8Array | undefined> {
  return shorter(await zstdInThreads(cluster, ZSTD_LEVEL), cluster);
}

function shorter(compressed: Uint8Array, cluster: Uint8Array): Uint8Array | undefined {
  return compressed.length < cluster.length ? compressed : undefined;
}
