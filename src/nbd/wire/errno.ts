/** Error values of the wire ("Error values"). They are not the host's numbers, which differ by system. */
export const Errno = {
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;

/** The name of an error that NBD can answer with, such as `EIO`; see "Error values" in its protocol. */
export type ErrnoName = keyof typeof Errno;

const NAMES = new Map<number, ErrnoName>(
  Object.entries(Errno).map(([name, value]) => [value, name as ErrnoName]),
);

/** Values that the protocol does not know count as EINVAL, as it asks for. */
export function errnoName(value: number): ErrnoName {
  return NAMES.get(value) ?? 'EINVAL';
}
