import { ExtentList, Status } from '../../../extent/index.js';
import { alignDown } from '../../../util/index.js';
import type { Capabilities, Driver, Limits } from '../../contract/index.js';
import type { NullDescription } from './description.js';

const LARGEST = alignDown(Number.MAX_SAFE_INTEGER, 512);
const GIB = 1024 ** 3;

/** Reads as zero and forgets what is written: a source without bytes, a target without a cost. */
export class NullDriver implements Driver {
  readonly name = 'null:';
  readonly description: NullDescription;
  readonly size: number;
  readonly limits: Limits;
  readonly capabilities: Capabilities = {
    write: true,
    zero: true,
    fastZero: true,
    discard: true,
    flush: true,
    contexts: ['base:allocation'],
    exactStatus: true,
    multiConnection: true,
    knownZero: true,
  };

  constructor(description: NullDescription) {
    this.description = description;
    this.size = description.size ?? LARGEST;
    this.limits = {
      minimum: 1,
      preferred: 4096,
      maximum: GIB,
      maximumZero: LARGEST,
      zeroAlignment: 1,
      discardAlignment: 1,
    };
  }

  async read(_offset: number, target: Uint8Array): Promise<void> {
    target.fill(0);
  }

  async write(): Promise<void> {}

  async zero(): Promise<void> {}

  async discard(): Promise<void> {}

  async flush(): Promise<void> {}

  async extents(
    offset: number,
    length: number,
    contexts: readonly string[],
  ): Promise<ExtentList[]> {
    return contexts.map(() => ExtentList.of(offset, length, Status.hole | Status.zero));
  }

  async close(): Promise<void> {}
}
