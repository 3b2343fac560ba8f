import { createInflateRaw, inflateRawSync } from 'node:zlib';
import { type Compression, findZstdFrame } from '../../../../qcow2/index.js';
import { zstdLibrary } from '../../../../wasm/index.js';

/**
 * Decompresses one cluster. The bytes may go on behind what was compressed, and the result must have exactly
 * `size` bytes: more are never made, whatever the bytes claim.
 *
 * @returns the cluster; undefined where the bytes are no cluster of that size.
 */
export type Decompress = (
  bytes: Uint8Array,
  size: number,
) => Uint8Array | undefined | Promise<Uint8Array | undefined>;

/** The decompressor of an image; the one for zstd is loaded when an image needs it. */
export async function decompressorFor(compression: Compression): Promise<Decompress> {
  return compression === 'deflate' ? inflate : await zstdDecompressor();
}

const inflate: Decompress = (bytes, size) => {
  try {
    // All comes out in one piece.
    const chunkSize = size + 64;
    const cluster = inflateRawSync(bytes, { maxOutputLength: size, chunkSize });
    return cluster.length === size ? cluster : undefined;
  } catch {
    return inflateBeginning(bytes, size);
  }
};

/**
 * The first bytes of a stream that goes on, or is nothing any more, behind them. By the format's description ("Compressed
 * Clusters Descriptor") decompression stops when it has produced a cluster: what follows belongs to nobody. QEMU reads
 * them so, too.
 */
async function inflateBeginning(bytes: Uint8Array, size: number): Promise<Uint8Array | undefined> {
  const stream = createInflateRaw({ chunkSize: size });
  stream.end(bytes);
  const cluster = new Uint8Array(size);
  let done = 0;
  try {
    for await (const piece of stream as AsyncIterable<Uint8Array>) {
      cluster.set(piece.subarray(0, size - done), done);
      done += piece.length;
      if (done >= size) return cluster;
    }
  } catch {
    // There is less than a cluster in it.
  }
  return undefined;
}

let zstd: Promise<Decompress> | undefined;

function zstdDecompressor(): Promise<Decompress> {
  zstd ??= loadZstd();
  return zstd;
}

/**
 * A frame of zstd that makes more than is wanted is damaged, as to QEMU: a frame says itself where it ends, so that its
 * writer must have meant a larger cluster.
 */
async function loadZstd(): Promise<Decompress> {
  const { decompress } = await zstdLibrary();
  return (bytes, size) => {
    const cluster = new Uint8Array(size);
    let done = 0;
    for (let at = 0; done < size; ) {
      const rest = bytes.subarray(at);
      const frame = findZstdFrame(rest);
      // The library makes as much room as a frame claims to need, so the claim is looked at before.
      if (frame === undefined || (frame.contentSize ?? 0) > size - done) return undefined;
      at += frame.length;
      if (frame.contentSize === 0) continue;
      try {
        const options = { defaultHeapSize: size - done };
        const content = decompress(rest.subarray(0, frame.length), options);
        cluster.set(content, done);
        done += content.length;
      } catch {
        return undefined;
      }
    }
    return cluster;
  };
}
