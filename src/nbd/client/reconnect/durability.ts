import { LacunaError } from '../../../errors/index.js';

/**
 * Which changes are known to be durable. "A flush covers the writes that were replied to before it"
 * (NBD_CMD_FLUSH); it covers none that another server process took.
 */
export class Durability {
  /** Changes that the server has acknowledged. */
  #acknowledged = 0;
  /** So many of them, the first, are durable. */
  #durable = 0;
  /** The connection was lost while some were not; that cannot be made good again. */
  #inDoubt = false;

  get acknowledged(): number {
    return this.#acknowledged;
  }

  changed(): void {
    this.#acknowledged++;
  }

  /** A flush has come back that was asked for when so many changes had been acknowledged. */
  flushed(acknowledged: number): void {
    this.#durable = Math.max(this.#durable, acknowledged);
  }

  lost(): void {
    if (this.#acknowledged > this.#durable) this.#inDoubt = true;
  }

  /** The caller knows what may have been forgotten, and writes it again. */
  forgive(): void {
    this.#durable = this.#acknowledged;
    this.#inDoubt = false;
  }

  /** @throws LacunaError ERR_NBD_UNFLUSHED when a flush could promise what nobody knows. */
  check(device: string): void {
    const doubt = this.doubt(device);
    if (doubt !== undefined) throw doubt;
  }

  /** Why a flush could promise what nobody knows, and a read give what was there before. */
  doubt(device: string): LacunaError | undefined {
    if (!this.#inDoubt) return undefined;
    const message =
      `${device}: the connection was lost after writes that had been acknowledged and not flushed; ` +
      'a server that crashed has forgotten them: open the device anew and write them again';
    return new LacunaError('ERR_NBD_UNFLUSHED', message, { device });
  }
}
