/** Bytes. A backup job of QEMU's writes whole ones to a server, which has no clusters of its own, and the end of the disk. */
export const GRANULE = 65536;
