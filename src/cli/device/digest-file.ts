/** A digest in a file, for comparison at any later time; docs/digest.md has the form. */
import { readFile, stat } from 'node:fs/promises';
import { LacunaError } from '../../errors/index.js';
import { fileError, Replacement, storeFile } from '../../files/index.js';
import { readText } from '../text/index.js';

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

const ACTION = 'store the digest in';

/**
 * Refuses a file that a digest cannot be stored in, before there is one: where the file holds something else, or cannot
 * be replaced.
 *
 * @throws LacunaError ERR_DEVICE_OPEN
 */
export async function checkDigestFile(path: string): Promise<void> {
  try {
    const old = await stat(path).catch(() => undefined);
    if (old?.isDirectory()) throw notStored(path, 'EISDIR');
    if (old !== undefined) {
      const text = old.isFile() && old.size <= LONGEST ? await readFile(path, 'utf8') : '';
      if (parse(text) === undefined) throw holdsNone(path);
    }
    tryToReplace(path);
  } catch (error) {
    throw error instanceof LacunaError ? error : notStored(path, error as Error);
  }
}

function holdsNone(path: string): LacunaError {
  const message = `Cannot store the digest in ${path}: it holds no digest; name another file`;
  return new LacunaError('ERR_DEVICE_OPEN', message, { device: path });
}

/** The surest way to find out now, and not after the copy, whether the file can be made. */
function tryToReplace(path: string): void {
  const file = Replacement.create(path);
  file.removeUnfinished();
  file.close();
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
  const text = `${JSON.stringify({ digest, size, ...METHOD })}\n`;
  return await storeFile(ACTION, path, text);
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
  const request = { action: ACTION, device: path, making: true };
  return fileError('ERR_DEVICE_OPEN', request, failure);
}
