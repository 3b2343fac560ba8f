/** A digest in a file, for comparison at any later time; docs/digest.md has the form. */
import type { Stats } from 'node:fs';
import { access, constants, readFile, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { LacunaError } from '../errors/index.js';
import {
  fileError,
  fileOperations,
  followed,
  Replacement,
  sweep,
  syncFolder,
} from '../files/index.js';
import { readText } from './read-text.js';

export interface StoredDigest {
  readonly digest: string;
  /** Bytes of the disk. */
  readonly size: number;
}

/** How a digest of this version is made, for programs that make it themselves. */
const METHOD = { hash: 'sha256', blockSize: 64 * 1024 };

const DIGEST = /^lacuna1:[0-9a-f]{64}$/;

/** Longer files hold something else. */
const LONGEST = 64 * 1024;

/**
 * Refuses a file that a digest cannot be stored in, before there is one: where the folder is not there, or the file
 * holds something else.
 *
 * @throws LacunaError ERR_DEVICE_OPEN
 */
export async function checkDigestFile(path: string): Promise<void> {
  let old: Stats | undefined;
  try {
    await access(dirname(resolve(followed(path))), constants.W_OK);
    old = await stat(path).catch(() => undefined);
    if (old === undefined) return;
    const isDigest = old.isFile() && old.size <= LONGEST && parse(await readFile(path, 'utf8'));
    if (isDigest) return;
  } catch (error) {
    throw notStored(path, error as Error);
  }
  if (old.isDirectory()) throw notStored(path, 'EISDIR');
  const message = `Cannot store the digest in ${path}: it holds no digest; name another file`;
  throw new LacunaError('ERR_DEVICE_OPEN', message, { device: path });
}

/**
 * Stores a digest in place of what the file held, durably: whatever happens, it holds the one or the other.
 *
 * @returns warnings: what could not be kept of the old file.
 * @throws LacunaError ERR_DEVICE_OPEN
 */
export async function storeDigest(path: string, { digest, size }: StoredDigest): Promise<string[]> {
  // The copy may have made it meanwhile.
  await checkDigestFile(path);
  let file: Replacement | undefined;
  try {
    sweep(path);
    file = Replacement.create(path);
    const text = `${JSON.stringify({ digest, size, ...METHOD })}\n`;
    fileOperations.write(file.fd, Buffer.from(text), 0);
    fileOperations.sync(file.fd);
    const warnings = file.commit();
    await syncFolder(file.name);
    return warnings;
  } catch (error) {
    file?.abandon();
    throw error instanceof LacunaError ? error : notStored(path, error as Error);
  } finally {
    file?.close();
  }
}

/**
 * A digest that was stored, or that `lacuna digest --json` printed.
 *
 * @throws LacunaError ERR_DEVICE_OPEN; TypeError where the file holds none.
 */
export async function readDigest(path: string): Promise<StoredDigest> {
  const stored = parse(await readText(path, '--check'));
  if (stored !== undefined) return stored;
  throw new TypeError(`${path} holds no digest: name a file that --digest-file has written`);
}

function parse(text: string): StoredDigest | undefined {
  try {
    const { digest, size } = JSON.parse(text) as StoredDigest;
    return DIGEST.test(digest) && Number.isSafeInteger(size) ? { digest, size } : undefined;
  } catch {
    return undefined;
  }
}

function notStored(path: string, failure: Error | string): LacunaError {
  const request = { action: 'store the digest in', device: path, making: true };
  return fileError('ERR_DEVICE_OPEN', request, failure);
}
