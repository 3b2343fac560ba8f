import type { QmpVersion } from '../qmp/index.js';
import { packageVersion } from '../util/index.js';

/** The version of QEMU whose commands the daemon has, so far as it has them. */
export function qemuVersion(): QmpVersion {
  return { major: 10, minor: 0, micro: 0, package: `lacuna ${packageVersion()}` };
}
