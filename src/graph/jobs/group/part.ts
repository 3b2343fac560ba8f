import type { Changer, Changes } from '../../core/index.js';
import type { JobGroup } from './job-group.js';

/** What a job does before its work, at one moment with others. */
interface Beginning {
  /** Opens what the job needs, and tells what happens at its beginning. To be called in a turn. Where it fails, `takeBack` is called. */
  prepare(): Promise<Partial<Changes>>;
  /** Takes back what was opened: the beginning has failed. Harmless where nothing was. */
  takeBack(): Promise<void>;
}

/** A job that begins in a transaction, at one moment with its other parts. */
export interface JobPart<Started> extends Beginning {
  /** The signal that the job is begun with. */
  readonly signal: AbortSignal | undefined;
  /** Begins the work, behind the change. @param group with whom it ends. */
  start(group: JobGroup): Started;
}

/** A job that begins by itself: where it cannot, nothing stays. */
export function beginAlone(changer: Changer, beginning: Beginning): Promise<void> {
  return changer.run(async () => {
    try {
      await changer.change(await beginning.prepare());
    } catch (error) {
      await beginning.takeBack();
      throw error;
    }
  });
}
