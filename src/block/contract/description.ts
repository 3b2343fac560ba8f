/** What every description may say. */
export interface CommonDescription {
  /** Refuse writes, and open the resource so that it refuses them too. Default false. */
  'read-only'?: boolean;
  /** Read although others may be writing, so that what is read may not fit together. Default false. */
  'force-share'?: boolean;
}

/** The descriptions of all drivers, by the driver's name. The folder of a driver adds its own. */
// biome-ignore lint/suspicious/noEmptyInterface: it is filled by declarations of the drivers
export interface Descriptions {}

/**
 * How a device is opened: plain JSON with the names of QEMU's `-blockdev`, so that a worker can open its
 * own, and so that a command line can say it as JSON or dotted keys.
 */
export type DeviceDescription = Descriptions[keyof Descriptions];

/** Of a driver whose bytes lie in a file of this machine as they are. */
type InFile = Extract<DeviceDescription, { filename: string }>;

/** The description of a plain file; undefined where a device is anything else. */
export function plainFile(description: DeviceDescription | undefined): InFile | undefined {
  return description !== undefined && 'filename' in description ? description : undefined;
}
