import type { LacunaError } from '../../errors/index.js';

/**
 * Where a connection's bytes go. The sink, not the socket, says where the next bytes land, so that a
 * payload is received straight into its destination.
 */
export interface ByteSink {
  /** Memory for the next bytes, never empty. Asked again without a delivery, it gives the same. */
  buffer(): Uint8Array;
  /**
   * `count` bytes landed in the buffer that was given last.
   *
   * @throws LacunaError ERR_NBD_PROTOCOL when they may not be there; the connection is then destroyed.
   */
  received(count: number): void;
  /** The connection is gone; called once, and nothing is received afterwards. */
  closed(failure: LacunaError): void;
}
