import type { Monitor } from '../../qmp/index.js';
import type { Journal, SessionNames } from '../state/index.js';
import { Teardown } from '../view/index.js';
import type { SessionHold } from './session-hold.js';
import type { ViewWatch } from './view-watch.js';

/** A point in time that is held by jobs which the session has begun itself. */
export class QemuHold implements SessionHold {
  readonly #watch: ViewWatch;
  readonly #teardown: Teardown;
  readonly #nbd: Journal['nbd'];

  constructor(monitor: Monitor, names: SessionNames, watch: ViewWatch, nbd: Journal['nbd']) {
    this.#watch = watch;
    this.#teardown = new Teardown(monitor, names);
    this.#nbd = nbd;
  }

  check(): Promise<void> {
    return this.#watch.check();
  }

  unwatch(): void {
    this.#watch.stop();
  }

  async end(): Promise<void> {
    await this.#teardown.run();
    await this.#teardown.endServer(this.#nbd);
  }

  forget(generation: string): Promise<string[]> {
    return this.#teardown.removeBitmaps(generation);
  }
}
