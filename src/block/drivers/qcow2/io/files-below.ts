/** The files that a chain is made of by the names in its images alone: whoever asks does not want to open them. */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { resolve } from 'node:path';
import { clusterSizeIn, type Header, parseHeader } from '../../../../qcow2/index.js';
import type { BackingName } from '../../../contract/index.js';
import { pathOfNamed } from './named-file.js';

/** Longer chains are not opened, and objects in JSON that are deeper name nothing. */
const MOST_FILES = 1000;
const DEEPEST = 64;

const FIRST_BYTES = 512;
const JSON_NAME = 'json:';
const FILE_NAME = 'file:';

/** A name of a file, and whether what is in it may be an image. */
interface Named {
  readonly path: string;
  readonly isRaw: boolean;
}

/**
 * The paths of a backing file and of all that is below it, in the way that any program may follow them: into every folder,
 * and through QEMU's `file:` and `json:` names. What cannot be read ends the chain.
 *
 * @param image the image that has the name, or is going to: a relative one counts from its folder.
 */
export function filesBelow(image: string, { filename, format }: BackingName): string[] {
  const found = new Set<string>();
  const waiting = namesIn(filename, image, format === 'raw');
  for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
    if (found.has(next.path) || found.size >= MOST_FILES) continue;
    found.add(next.path);
    const header = next.isRaw ? undefined : headerOf(next.path);
    if (header === undefined) continue;
    const { backingFile, extensions } = header;
    const { backingFormat, dataFile } = extensions;
    if (backingFile !== undefined) {
      waiting.push(...namesIn(backingFile, next.path, backingFormat === 'raw'));
    }
    if (dataFile !== undefined) waiting.push(...namesIn(dataFile, next.path, true));
  }
  return [...found];
}

/** The data file that an image names, if it is one that has any. */
export function dataFileOf(image: string): string | undefined {
  const named = headerOf(image)?.extensions.dataFile;
  return named === undefined ? undefined : pathOfNamed(named, image);
}

/** The path of the file that an image names as the one below it; undefined where it names something else than one file. */
export function backingPathOf(named: string, image: string): string | undefined {
  const [found, ...more] = named.startsWith(JSON_NAME) ? [] : namesIn(named, image, false);
  return more.length === 0 ? found?.path : undefined;
}

function namesIn(named: string, image: string, isRaw: boolean): Named[] {
  if (named.includes('\0')) return [];
  if (named.startsWith(JSON_NAME)) return namesInJson(named.slice(JSON_NAME.length), image);
  const path = named.startsWith(FILE_NAME) ? named.slice(FILE_NAME.length) : named;
  return [{ path: pathOfNamed(path, image), isRaw }];
}

/** All files that a description names, of whatever part of it; QEMU takes relative ones from its own folder. */
function namesInJson(text: string, image: string): Named[] {
  let description: unknown;
  try {
    description = JSON.parse(text);
  } catch {
    return [];
  }
  const names: Named[] = [];
  const visit = (value: unknown, depth: number): void => {
    if (typeof value !== 'object' || value === null || depth > DEEPEST) return;
    for (const [key, inner] of Object.entries(value)) {
      visit(inner, depth + 1);
      if (typeof inner !== 'string' || !/(^|\.)filename$/.test(key)) continue;
      names.push({ path: resolve(inner), isRaw: false }, ...namesIn(inner, image, false));
    }
  };
  visit(description, 0);
  return names;
}

/** The header of a file that begins as an image; undefined for every other one, and for what cannot be read. */
function headerOf(path: string): Header | undefined {
  let fd: number;
  try {
    // A pipe would wait for its other end.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch {
    return undefined;
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile() && !stat.isBlockDevice()) return undefined;
    const first = readStart(fd, FIRST_BYTES);
    return parseHeader(readStart(fd, clusterSizeIn(first, path)), path);
  } catch {
    return undefined;
  } finally {
    closeSync(fd);
  }
}

function readStart(fd: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  return bytes.subarray(0, readSync(fd, bytes, 0, length, 0));
}
