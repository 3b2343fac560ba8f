/** What every live backup says of its disks. */

/** @throws TypeError where the backup has no disk of that name. */
export function diskCalled<D extends { readonly name: string }>(
  disks: readonly D[],
  name: string,
): D {
  const found = disks.find((disk) => disk.name === name);
  if (found !== undefined) return found;
  const names = disks.map((disk) => disk.name).join(', ');
  throw new TypeError(`the backup has no disk ${JSON.stringify(name)}: it has ${names}`);
}

/** @throws TypeError while a disk is being read. */
export function checkUnread(
  disks: readonly { readonly name: string; readonly isRead: boolean }[],
): void {
  const reading = disks.find(({ isRead }) => isRead);
  if (reading === undefined) return;
  const told = `${reading.name} is still being read: end the loop, or await the copy, first`;
  throw new TypeError(told);
}
