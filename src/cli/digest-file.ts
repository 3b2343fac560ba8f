/** A digest in a file, for comparison at any later time; docs/digest.md has the form. */
import type { Stats } from 'node:fs';
import { access, constants, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { fileError, syncFolder } from '../block/index.js';
import { LacunaError } from '../errors/index.js';
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
    await access(dirname(resolve(path)), constants.W_OK);
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
 * @throws LacunaError ERR_DEVICE_OPEN
 */
export async function storeDigest(path: string, { digest, size }: StoredDigest): Promise<void> {
  // The copy may have made it meanwhile.
  await checkDigestFile(path);
  const fresh = `${path}.new`;
  try {
    const file = await open(fresh, 'w');
    try {
      await file.writeFile(`${JSON.stringify({ digest, size, ...METHOD })}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(fresh, path);
    await syncFolder(path);
  } catch (error) {
    await rm(fresh, { force: true }).catch(() => {});
    throw notStored(path, error as Error);
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
