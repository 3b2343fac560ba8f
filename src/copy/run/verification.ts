/** Reads back what a copy has made, and compares it with the source. */
import type { Bitmap } from '../../bitmap/index.js';
import type { BlockDevice } from '../../block/index.js';
import { LacunaError } from '../../errors/index.js';
import type { JobControl } from '../../job/index.js';
import type { Arena } from '../../wasm/index.js';
import type { CheckedScope, TransferOptions } from '../options/index.js';
import { plan } from '../plan/index.js';
import { Comparison } from './comparison.js';

export interface VerificationOptions {
  transfer: TransferOptions;
  source: BlockDevice;
  target: BlockDevice;
  /** What was copied ... */
  scope: CheckedScope;
  /** ... but for this. */
  leftOut: Bitmap;
  arena: Arena;
  job: JobControl;
}

export class Verification {
  readonly #options: VerificationOptions;
  #comparison: Comparison | undefined;

  constructor(options: VerificationOptions) {
    this.#options = options;
  }

  /** Bytes to read from at least one side; 0 until that is known. */
  get totalBytes(): number {
    return this.#comparison?.totalBytes ?? 0;
  }

  get doneBytes(): number {
    return this.#comparison?.comparedBytes ?? 0;
  }

  /**
   * Compares all that the copy claims to be equal, what both sides call zero by their status included. Both are asked
   * for their status anew, so that nothing is taken from what the copy itself believed. Returns warnings.
   *
   * @throws LacunaError ERR_COPY_VERIFY, with the first byte that differs.
   */
  async run(): Promise<string[]> {
    const { transfer, source, target, scope, leftOut, arena, job } = this.#options;
    const signal = job.ending;
    const { mode, contexts: context, bitmaps: bitmap } = scope;
    const a = await plan({ source, mode, context, bitmap, arena, signal });
    const covered = a.data.snapshot();
    covered.merge(a.zero);
    covered.subtract(leftOut);
    const claimed = covered.snapshot();
    claimed.resize(target.size);
    const b = await plan({ source: target, bitmap: claimed, arena, signal });
    b.data.resize(source.size);
    const either = a.data.snapshot();
    either.merge(b.data);
    either.intersect(covered);
    this.#comparison = new Comparison({
      transfer,
      a: { device: source, data: a.data },
      b: { device: target, data: b.data },
      plan: either,
      arena,
      job,
    });
    const { offset, warnings } = await this.#comparison.run();
    const bitmaps = [covered, claimed, either, a.data, a.zero, b.data, b.zero];
    for (const made of bitmaps) made.free();
    if (offset !== undefined) throw differs(source, target, offset);
    return [...a.warnings, ...b.warnings, ...warnings];
  }
}

function differs({ name }: BlockDevice, target: BlockDevice, offset: number): LacunaError {
  const message =
    `${target.name} was read back and differs from ${name} at byte ${offset}, although it was just written: ` +
    'make sure that nobody else writes to either of them, look at the disks, and copy again';
  return new LacunaError('ERR_COPY_VERIFY', message, { device: target.name, offset });
}
