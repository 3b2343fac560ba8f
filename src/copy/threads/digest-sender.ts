/** Brings the digests of blocks from a worker to the tree, which the calling thread has: many in one message. */
import type { MessagePort } from 'node:worker_threads';
import { type BlockDigests, digestBlocks } from '../move/index.js';

/** Digests in a message: one for every 64 MiB of data. */
const BATCH = 1024;

const DIGEST_BYTES = 32;

export interface DigestBatch {
  readonly blocks: Float64Array;
  /** The digest of each block, one behind the other. */
  readonly digests: Uint8Array;
}

/** The worker's end. */
export class DigestSender implements BlockDigests {
  readonly #port: MessagePort;
  readonly #blocks = new Float64Array(BATCH);
  readonly #digests = new Uint8Array(BATCH * DIGEST_BYTES);
  #count = 0;

  constructor(port: MessagePort) {
    this.#port = port;
  }

  /** For a mover: takes the digests of a piece. */
  readonly moved = (offset: number, bytes: Uint8Array): void => digestBlocks(offset, bytes, this);

  add(block: number, digest: Uint8Array): void {
    this.#blocks[this.#count] = block;
    this.#digests.set(digest, this.#count * DIGEST_BYTES);
    this.#count++;
    if (this.#count === BATCH) this.flush();
  }

  /** Sends what has not been sent. */
  flush(): void {
    const batch: DigestBatch = {
      blocks: this.#blocks.slice(0, this.#count),
      digests: this.#digests.slice(0, this.#count * DIGEST_BYTES),
    };
    this.#port.postMessage(batch, [batch.blocks.buffer, batch.digests.buffer] as ArrayBuffer[]);
    this.#count = 0;
  }
}

/** The caller's end. */
export function addBatch(taker: BlockDigests, { blocks, digests }: DigestBatch): void {
  for (const [i, block] of blocks.entries()) {
    taker.add(block, digests.slice(i * DIGEST_BYTES, (i + 1) * DIGEST_BYTES));
  }
}
