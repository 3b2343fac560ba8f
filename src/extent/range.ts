/** A range of bytes. */
export interface Range {
  /** First byte. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
}
