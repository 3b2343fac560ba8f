/** A backing file: its name as it shall stand in the image, and its format. */
export interface BackingName {
  /** Relative to the image's folder, or absolute. */
  readonly filename: string;
  /** Such as `raw` or `qcow2`; readers must not guess it. */
  readonly format: string;
}
