import { checkRate, type JobControl } from '../../../job/index.js';
import type { Changer } from '../../core/index.js';
import { beginAlone, JobGroup, type JobPart, LiveJob } from '../group/index.js';
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

  /** @internal See `Graph.mirror`. @param begin what happens before its work, unless that was done. */
  constructor(
    run: MirrorRun,
    { rate, signal, autoFinalize, autoDismiss }: MirrorOptions,
    group: JobGroup,
    begin?: () => Promise<void>,
  ) {
    const member = group.join(autoFinalize);
    const work = async (control: JobControl) => {
      await begin?.();
      return run.work(control, member);
    };
    super({
      ...{ what: 'a mirror', rate, signal, autoDismiss, member, work, wish: run.wish },
      counted: () => run.counted(),
      hasBegun: begin === undefined,
    });
    member.stop = () => this.stop();
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

/** Begins a mirror job; see `Graph.mirror`. */
export function mirror(changer: Changer, options: MirrorOptions): MirrorJob {
  const run = runOf(changer, options);
  return new MirrorJob(run, options, new JobGroup(changer), () => beginAlone(changer, run));
}

/** A mirror job that begins in a transaction. */
export function mirrorPart(changer: Changer, options: MirrorOptions): JobPart<MirrorJob> {
  const run = runOf(changer, options);
  return {
    signal: options.signal,
    prepare: () => run.prepare(),
    takeBack: () => run.takeBack(),
    start: (group) => new MirrorJob(run, options, group),
  };
}

function runOf(changer: Changer, options: MirrorOptions): MirrorRun {
  const checked = checkMirror(options);
  checkRate(options.rate);
  return new MirrorRun(changer, checked);
}
