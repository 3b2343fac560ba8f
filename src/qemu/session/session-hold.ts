/** What holds the point in time of a session in a machine: jobs of QEMU's, or a backup of libvirt's. */
export interface SessionHold {
  /**
   * Asks whether the view has been sound until now.
   *
   * @throws LacunaError ERR_VIEW_LOST
   */
  check(): Promise<void>;
  /** What becomes of the view does not matter any more. */
  unwatch(): void;
  /**
   * Ends the view, after all of our connections to it. Safe to call again.
   *
   * @throws LacunaError ERR_MACHINE_LEFTOVERS; what the machine throws.
   */
  end(): Promise<void>;
  /**
   * Removes what counts from a generation; harmless where it is gone.
   *
   * @returns warnings
   * @throws as {@link end}
   */
  forget(generation: string): Promise<string[]>;
}
