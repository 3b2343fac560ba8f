import type { CommonDescription, DeviceDescription } from '../../contract/index.js';

/** A part of another device, as a device of its own: its bytes as they are, from one on. */
export interface RawDescription extends CommonDescription {
  /** The bytes of a device as they are, or a part of them. */
  driver: 'raw';
  /** The device that it is a part of. */
  file: DeviceDescription;
  /** Bytes of that before it; where it is written, a multiple of what that writes at least. Default 0. */
  offset?: number;
  /** Bytes of it. Default: up to the end of the device; as target of a copy: as many as are copied. */
  size?: number;
}

declare module '../../contract/description.js' {
  interface Descriptions {
    /** A part of a device. */
    raw: RawDescription;
  }
}
