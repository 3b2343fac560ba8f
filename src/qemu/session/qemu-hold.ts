import type { Monitor } from '../../qmp/index.js';
import type { Push } from '../push/index.js';
import type { Journal, SessionNames } from '../state/index.js';
import { Teardown } from '../view/index.js';
import type { SessionHold } from './session-hold.js';
import type { ViewWatch } from './view-watch.js';

/** A point in time that is held by jobs which the session has begun itself. */
export class QemuHold implements SessionHold {
  readonly #watch: ViewWatch;
  readonly #teardown: Teardown;
  readonly #nbd: Journal['nbd'];
  readonly #push: Push | undefined;

  constructor(
    monitor: Monitor,
    names: SessionNames,
    held: { watch: ViewWatch; nbd: Journal['nbd']; push?: Push | undefined },
  ) {
    this.#watch = held.watch;
    this.#teardown = new Teardown(monitor, names);
    this.#nbd = held.nbd;
    this.#push = held.push;
  }

  check(): Promise<void> {
    return this.#watch.check();
  }

  unwatch(): void {
    this.#watch.stop();
  }

  async end(): Promise<void> {
    await this.#push?.close();
    await this.#teardown.run();
    await this.#teardown.endServer(this.#nbd);
  }

  forget(generation: string): Promise<string[]> {
    return this.#teardown.removeBitmaps(generation);
  }
}
