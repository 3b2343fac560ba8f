/** A digest in a file, for comparison at any later time; docs/digest.md has the form. */
import { access, constants, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { syncFolder } from '../block/index.js';
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
  try {
    await access(dirname(resolve(path)), constants.W_OK);
    const old = await stat(path).catch(() => undefined);
    if (old === undefined) return;
    const isDigest = old.isFile() && old.size <= LONGEST && parse(await readFile(path, 'utf8'));
    if (isDigest) return;
  } catch (cause) {
    throw notStored(path, (cause as Error).message, cause);
  }
  throw notStored(path, 'there is a file that holds no digest');
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
  } catch (cause) {
    await rm(fresh, { force: true }).catch(() => {});
    throw notStored(path, (cause as Error).message, cause);
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

function notStored(path: string, why: string, cause?: unknown): LacunaError {
  const message = `Cannot store the digest in ${path}: ${why}; name another file`;
  return new LacunaError('ERR_DEVICE_OPEN', message, { device: path, cause });
}
