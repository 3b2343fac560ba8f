/** What to do when the system refuses something about a file. */
const ADVICE: Readonly<Record<string, string>> = {
  EACCES: 'permission denied: allow this user to, or run as one who may',
  EBUSY: 'it is mounted, or in use otherwise: see who uses it, or name another',
  EDQUOT: 'the quota is used up: raise it or free space, then go on',
  EFBIG: 'the file system or a limit (ulimit -f) does not allow files this long',
  EIO: 'the storage failed: see the system log',
  EISDIR: 'it is a folder: name a file',
  ELOOP: 'its symbolic links lead in a circle: check where they lead',
  EMFILE: 'too many open files: raise the limit (ulimit -n)',
  ENAMETOOLONG: 'the name is too long: choose a shorter one',
  ENODEV: 'the system has no driver for this device',
  ENOENT: 'there is no such file: check the path',
  ENOMEDIUM: 'there is no medium in the device',
  ENOSPC: 'there is no space left: free some, then go on',
  ENOTDIR: 'part of the path is not a folder: check the path',
  ENXIO: 'it is a socket, or a device that is not ready',
  EPERM: 'the system does not permit it: the file may be sealed or immutable',
  EROFS: 'the file system is read-only',
  ESTALE: 'the file was replaced on the server: open it again',
  ETXTBSY: 'the file is in use as a program or as swap space',
};

/** The same where a file is to be made. */
const ADVICE_TO_MAKE: Readonly<Record<string, string>> = {
  EEXIST: 'there is one already: remove it, or choose another name',
  ENOENT: 'there is no such folder: make it, or check the path',
  EPERM: 'the system does not permit it: the file or its folder may be immutable (see lsattr)',
};

/** The same of a block device, of which the others would say something that is not true. */
const ADVICE_OF_DEVICE: Readonly<Record<string, string>> = {
  EPERM: 'the device is read-only: "blockdev --setrw" changes that where it can be written',
  EROFS: 'the device is read-only: "blockdev --setrw" changes that where it can be written',
};

/**
 * Says what the system refused, why, and what to do about it.
 *
 * @param what such as `Cannot read disk.raw`
 * @param errno its name, such as `ENOENT`
 * @param options `making`: it was about a file that was to be made; `isBlock`: it was about a block device.
 */
export function describeRefusal(
  what: string,
  errno: string,
  { making = false, isBlock = false } = {},
): string {
  const special = making ? ADVICE_TO_MAKE : isBlock ? ADVICE_OF_DEVICE : {};
  const advice = special[errno] ?? ADVICE[errno];
  return `${what} (${errno})${advice === undefined ? '' : `: ${advice}`}`;
}
