/** Points that a kept overlay lies over: they must not go while it is there. */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { join } from 'node:path';
import {
  attempt,
  createFile,
  type MachinePlaces,
  makeFolder,
  namesIn,
  type RepositoryOperations,
  readIfThere,
  seal,
  unseal,
} from '../layout/index.js';
import { thisHolder } from './holder.js';

/** An overlay over an image of a point. */
export interface Hold {
  readonly number: number;
  /** The file of the overlay. */
  readonly overlay: string;
  /** Where that file is. */
  readonly host: string;
}

/** A hold that was found. */
export interface FoundHold extends Hold {
  readonly path: string;
  /** Whether the overlay is there; true also where that cannot be seen from here. */
  readonly isThere: boolean;
}

/** Notes that an overlay lies over a point, before there is one. */
export function hold(
  places: MachinePlaces,
  { number, overlay }: Omit<Hold, 'host'>,
  operations: RepositoryOperations,
): void {
  if (holdsOf(places).some((found) => found.number === number && found.overlay === overlay)) return;
  makeFolder(places.holds, operations);
  const path = join(places.holds, `${randomBytes(8).toString('hex')}.json`);
  createFile(path, seal({ number, overlay, host: thisHolder().host }), operations);
}

/** All holds of a machine. */
export function holdsOf(places: MachinePlaces): FoundHold[] {
  const { host: here } = thisHolder();
  return namesIn(places.holds)
    .filter((name) => /^[0-9a-f]{16}\.json$/.test(name))
    .flatMap((name) => {
      const path = join(places.holds, name);
      const bytes = readIfThere(path);
      const found = bytes && unseal(bytes);
      // What cannot be read holds everything.
      if (found === undefined) return [{ path, number: 0, overlay: '?', host: '', isThere: true }];
      const { number, overlay, host } = found as unknown as Hold;
      const isThere = host !== here || fs.existsSync(overlay);
      return [{ path, number, overlay, host, isThere }];
    });
}

/** Removes a hold whose overlay is gone. */
export function endHold({ path }: FoundHold): void {
  attempt('remove', path, () => fs.rmSync(path, { force: true }));
}
