import { Validator } from '@cfworker/json-schema';
import { LacunaError } from '../../errors/index.js';
import {
  type MachinePlaces,
  NOT_SEALED,
  namesIn,
  numberOf,
  readIfThere,
  unseal,
} from '../layout/index.js';
import { missingPoints } from './listed.js';
import type { Manifest } from './manifest.js';
import { POINT_SCHEMA } from './schema.js';
import { shapeFault } from './shape.js';

/** The manifests of a machine, oldest first, and what is wrong with files that should be some. */
export interface Manifests {
  readonly points: readonly Manifest[];
  readonly problems: readonly LacunaError[];
}

/** The numbers that files have which are manifests by their names. */
export function numbersIn(places: MachinePlaces): number[] {
  return namesIn(places.points)
    .map(numberOf)
    .filter((number) => number !== undefined);
}

/** Reads all manifests of a machine. */
export function readManifests(places: MachinePlaces, repository: string): Manifests {
  const points: Manifest[] = [];
  const problems: LacunaError[] = [];
  const numbers = numbersIn(places);
  for (const number of numbers) {
    try {
      const manifest = readManifest(places, number, repository);
      if (manifest !== undefined) points.push(manifest);
    } catch (error) {
      if (!isDamage(error)) throw error;
      problems.push(error);
    }
  }
  points.sort((a, b) => a.number - b.number);
  problems.push(...missingPoints(places, new Set(numbers)));
  return { points, problems };
}

/**
 * Reads a manifest; undefined if it does not exist.
 *
 * @throws LacunaError ERR_REPOSITORY_DAMAGED, or ERR_REPOSITORY_FORMAT for a version that is not known.
 */
export function readManifest(
  places: MachinePlaces,
  number: number,
  repository: string,
): Manifest | undefined {
  const path = places.manifest(number);
  const bytes = readIfThere(path);
  if (bytes === undefined) return undefined;
  const found = unseal(bytes);
  const point = `point ${number} of ${places.machine}`;
  const damaged = (why: string) =>
    new LacunaError('ERR_REPOSITORY_DAMAGED', `${path}: the manifest of ${point}: ${why}`, {
      device: path,
    });
  if (found === undefined) throw damaged(NOT_SEALED);
  if (found.format !== 'lacuna-point') throw damaged('it is something else');
  if (found.version !== 1) throw newer(path, found.version);
  if (found.number !== number || found.machine !== places.machine) {
    throw damaged(`it is that of point ${found.number} of ${found.machine}: give it its name back`);
  }
  if (found.repository !== repository) throw damaged('it belongs to another repository');
  const fault = shapeFault(found);
  if (fault !== undefined) throw damaged(fault);
  return found as unknown as Manifest;
}

/** The error for a file that a newer program has written. */
export function newer(path: string, version: unknown): LacunaError {
  const message = `${path} has version ${JSON.stringify(version)}, and only version 1 is known here: update Lacuna`;
  return new LacunaError('ERR_REPOSITORY_FORMAT', message, { device: path });
}

let validator: Validator | undefined;

/**
 * Why a manifest is not as the schema says; undefined where it is. It is asked before a manifest is written, and before what one
 * says is used: to list many it takes too long, and what a list needs is looked at when it is read.
 */
export function faultOf(manifest: Manifest): string | undefined {
  validator ??= new Validator(POINT_SCHEMA as never, '2020-12');
  const { valid, errors } = validator.validate(manifest);
  if (valid) return undefined;
  const last = errors.at(-1);
  return `${last?.instanceLocation ?? '#'}: ${last?.error ?? 'it is not as its schema says'}`;
}

export function isDamage(error: unknown): error is LacunaError {
  return error instanceof LacunaError && error.code === 'ERR_REPOSITORY_DAMAGED';
}
