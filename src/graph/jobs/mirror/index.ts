import { checkRate, type JobControl } from '../../../job/index.js';
import type { Changer } from '../../core/index.js';
import { LiveJob } from '../rounds/index.js';
import { MirrorRun } from './mirror-run.js';
import {
  checkMirror,
  checkMirrorChange,
  type MirrorChange,
  type MirrorOptions,
  type MirrorProgress,
  type MirrorReport,
} from './options.js';

export type { MirrorChange, MirrorOptions, MirrorProgress, MirrorReport } from './options.js';

/** Keeps a copy of a node up to date until it is told to complete or to be cancelled. */
export class MirrorJob extends LiveJob<MirrorReport, MirrorProgress> {
  readonly #run: MirrorRun;

  /** @internal See `Graph.mirror`. */
  constructor(changer: Changer, options: MirrorOptions) {
    const run = new MirrorRun(changer, checkMirror(options));
    const { rate, signal } = options;
    checkRate(rate);
    super({
      what: 'a mirror',
      rate,
      signal,
      wish: run.wish,
      work: (control: JobControl) => run.work(control),
      counted: () => run.counted(),
    });
    this.#run = run;
  }

  /**
   * Switches the mode, in both directions and at any time: for writes that begin from now on.
   *
   * @throws TypeError
   */
  change(change: MirrorChange): void {
    this.#run.setMode(checkMirrorChange(change));
  }
}
