import type { CommonDescription, Descriptions, DriverKind } from '../contract/index.js';
import { delay, error, log, throttle } from '../filters/index.js';
import { file } from './file/index.js';
import { memory } from './memory/index.js';
import { nbd } from './nbd/index.js';
import { nothing } from './null/index.js';
import { qcow2 } from './qcow2/index.js';
import { raw } from './raw/index.js';

/** Every driver and filter by its name in descriptions. To remove one, remove its folder or file, and its line here. */
export const DRIVERS: { readonly [D in keyof Descriptions]: DriverKind<Descriptions[D]> } = {
  file,
  memory,
  nbd,
  null: nothing,
  qcow2,
  raw,
  delay,
  error,
  log,
  throttle,
};

/** The same, by names that are known only at run time. */
export const KINDS: Readonly<
  Record<string, DriverKind<CommonDescription & { driver: string }> | undefined>
> = DRIVERS as never;
