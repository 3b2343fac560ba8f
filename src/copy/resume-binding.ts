/**
 * What binds a resume file to one copy: facts about source, target and plan, each with the name that a message
 * gives it. None of them changes when a machine starts anew, as the number of a device may.
 */
import fs from 'node:fs';
import { resolve } from 'node:path';
import { checksumOf } from '../bitmap/file-writer.js';
import type { Device, DeviceDescription } from '../block/index.js';
import { LacunaError } from '../errors/index.js';
import type { CheckedScope } from './plan-scope.js';

export type Binding = Readonly<Record<string, string>>;

/** The facts of the source, which must not change until the copy is complete. */
export function sourceBinding(source: Device): Binding {
  const facts = deviceBinding('source', source);
  const { description } = source;
  if (description?.driver !== 'file') return facts;
  const stat = fs.statSync(description.filename, { bigint: true });
  return stat.isFile() ? { ...facts, "source's time of change": `${stat.mtimeNs}` } : facts;
}

/** The facts of a device under the name of its side. */
export function deviceBinding(side: 'source' | 'target', device: Device): Binding {
  return {
    [side]: placeOf(device),
    [`${side}'s size`]: `${device.size}`,
    ...inodeBinding(side, device.description),
  };
}

/** What the copy was planned from: everything, the top layer, or what contexts or bitmaps call dirty. */
export function planBinding(scope: CheckedScope): Binding {
  return { 'choice of what to copy': choiceOf(scope) };
}

function choiceOf({ mode, contexts, bitmaps }: CheckedScope): string {
  if (contexts.length > 0) return contexts.join(', ');
  if (bitmaps.length > 0) return `bitmap ${bitmaps.map(checksumOf).join(', ')}`;
  return mode === 'top' ? 'the top layer' : 'all';
}

/**
 * Refuses to go on with another copy.
 *
 * @throws LacunaError ERR_RESUME_MISMATCH with the first fact that differs
 */
export function checkBinding(path: string, saved: Binding, now: Binding): void {
  for (const [fact, value] of Object.entries(now)) {
    if (saved[fact] === value) continue;
    const was = saved[fact] === undefined ? 'another kind' : saved[fact];
    throw mismatch(path, `the ${fact} was ${was} when the copy began, and is ${value} now`);
  }
}

export function mismatch(path: string, what: string): LacunaError {
  const message = `Cannot resume from ${path}: ${what}; name what the copy began with, or delete ${path} to begin again`;
  return new LacunaError('ERR_RESUME_MISMATCH', message, { device: path });
}

function placeOf({ name, description }: Device): string {
  if (description?.driver === 'file') return fs.realpathSync(description.filename);
  if (description?.driver !== 'nbd') return name;
  const { server, export: exportName = '' } = description;
  const address =
    server.type === 'unix' ? resolve(server.path) : `${server.host}:${server.port ?? ''}`;
  return `export '${exportName}' of ${address}`;
}

function inodeBinding(side: string, description: DeviceDescription | undefined): Binding {
  if (description?.driver !== 'file') return {};
  const stat = fs.statSync(description.filename, { bigint: true });
  // The inodes of block devices are made anew with every start of the machine.
  return stat.isFile() ? { [`${side}'s inode`]: `${stat.ino}` } : {};
}
