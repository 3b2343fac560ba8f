import { checkGiven, closeAfter, optionCheck } from '../../util/index.js';
import { A_SOURCE, type DeviceDescription } from '../contract/index.js';
import type { OpenOptions } from '../open/index.js';
import type { CheckReport } from './check-file.js';
import { imageFileOf, openImageFile } from './image-file.js';

/** How an image is checked; see {@link OpenOptions} for what has no words of its own. */
export interface CheckOptions extends Pick<OpenOptions, 'forceShare' | 'format' | 'signal'> {
  /**
   * What is repaired: refcounts that are too high (`leaks`), or all refcounts, and the marks that follow from them
   * (`all`). Nobody else may have the image open then. Default: nothing.
   */
  readonly repair?: 'leaks' | 'all';
}

const checkOptions = optionCheck<CheckOptions>({
  repair: 'any',
  forceShare: 'flag',
  format: 'any',
  signal: 'signal',
});

/**
 * Checks a qcow2 image: its tables and refcounts, not what lies below it. A repair changes nothing if a table has a
 * wrong entry. Run it again after it was interrupted.
 *
 * @throws TypeError for options that contradict each other; LacunaError ERR_DEVICE_FORMAT where it is no qcow2 image,
 * ERR_DEVICE_LOCKED, ERR_QCOW2_CORRUPT and ERR_QCOW2_UNSUPPORTED where it cannot be looked at, or not be repaired; ERR_ABORTED.
 */
export async function checkQcow2(
  source: string | DeviceDescription,
  options: CheckOptions = {},
): Promise<CheckReport> {
  checkGiven('checkQcow2', 'source', source, A_SOURCE);
  checkOptions('checkQcow2', options);
  const { repair, format, forceShare, signal } = options;
  if (repair !== undefined && repair !== 'leaks' && repair !== 'all') {
    throw new RangeError(`repair must be leaks or all, not ${repair}`);
  }
  const own = imageFileOf(source, format, {
    other: 'nothing else can be checked',
    whole: 'checked',
  });
  const writable = repair !== undefined;
  const file = await openImageFile(own, { writable, forceShare, signal });
  const check = async () => {
    // Loaded when it is needed, as most commands check nothing.
    const { checkFile } = await import('./check-file.js');
    return await checkFile(file, { repair, signal });
  };
  return closeAfter(check, () => file.close());
}
