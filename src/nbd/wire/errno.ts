/** Error values of the wire ("Error values"). They are not the host's numbers, which differ by system. */
const NAMES: Readonly<Record<number, string>> = {
  1: 'EPERM',
  5: 'EIO',
  12: 'ENOMEM',
  22: 'EINVAL',
  28: 'ENOSPC',
  75: 'EOVERFLOW',
  95: 'ENOTSUP',
  108: 'ESHUTDOWN',
};

/** Values that the protocol does not know count as EINVAL, as it asks for. */
export function errnoName(value: number): string {
  return NAMES[value] ?? 'EINVAL';
}
