import { LacunaError } from '../../errors/index.js';
import {
  createFile,
  type MachinePlaces,
  type RepositoryOperations,
  replaceFile,
  seal,
} from '../layout/index.js';
import type { Manifest } from './manifest.js';
import { faultOf } from './read.js';

/**
 * Makes a restore point exist.
 *
 * @throws LacunaError ERR_REPOSITORY_CHANGED where there is a point of this number by now.
 */
export function commitManifest(
  places: MachinePlaces,
  manifest: Manifest,
  operations: RepositoryOperations,
): void {
  const path = places.manifest(manifest.number);
  if (createFile(path, sealed(manifest), operations)) return;
  const message = `Another backup of ${places.machine} became point ${manifest.number} meanwhile, and this one was not kept: run it again`;
  throw new LacunaError('ERR_REPOSITORY_CHANGED', message, { device: path });
}

/** Puts a manifest in the place of an earlier one of the same point. */
export function replaceManifest(
  places: MachinePlaces,
  manifest: Manifest,
  operations: RepositoryOperations,
): void {
  replaceFile(places.manifest(manifest.number), sealed(manifest), operations);
}

function sealed(manifest: Manifest): Buffer {
  const fault = faultOf(manifest);
  if (fault === undefined) return seal(manifest);
  throw new TypeError(`the manifest of point ${manifest.number} would not be valid: ${fault}`);
}
