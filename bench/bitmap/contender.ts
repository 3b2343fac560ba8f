/** One way to hold a set of granules; positions are granules, not bytes. */
export interface Holder {
  set(position: number): void;
  setMany(positions: Float64Array): void;
  reset(position: number): void;
  get(position: number): boolean;
  /** First dirty (or clean) position at or behind one; -1 when there is none. */
  next(position: number, dirty: boolean): number;
  setAll(): void;
  resetAll(): void;
  /** Says that a clean position is only found by trying, which would take hours here. */
  readonly findsNoClean?: true;
  /** The number of dirty runs. */
  runs(): number;
  merge(other: this): void;
  snapshot(): this;
  /** Takes everything in windows of some granules; returns how many windows there were. */
  claimAll?(): number;
  digest?(): string;
  count(): number;
  /** Bytes that the content takes. */
  bytes(): number;
  free(): void;
}

export interface Contender {
  name: string;
  /** What it lacks: missing operations are printed as "cannot". */
  make(granules: number): Holder | null;
}
