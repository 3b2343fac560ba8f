/** The configuration of a machine in a file: into a restore point, and back out of it. */
import { existsSync } from 'node:fs';
import { storeFile } from '../../files/index.js';
import { readSmallFile } from '../../util/index.js';

/** Every list of points reads the manifests with all that they hold. */
const LONGEST_KIB = 64;

/**
 * A text that a restore point shall keep.
 *
 * @throws LacunaError ERR_DEVICE_OPEN where the file cannot be read; TypeError where it is too long, or no text.
 */
export async function readConfiguration(path: string): Promise<string> {
  const request = { code: 'ERR_DEVICE_OPEN', what: 'the file of --configuration,' } as const;
  const bytes = await readSmallFile(path, request);
  if (bytes.length > LONGEST_KIB * 1024) {
    throw new TypeError(
      `${path} is longer than ${LONGEST_KIB} KiB, the most that a restore point keeps of a configuration: name a shorter file (--configuration)`,
    );
  }
  const text = textOf(bytes);
  if (text !== undefined && text !== '') return text;
  const what = text === '' ? 'is empty' : 'is no text in UTF-8';
  throw new TypeError(`${path} ${what}: name a file with the text to keep (--configuration)`);
}

function textOf(bytes: Buffer): string | undefined {
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    return text.includes('\0') ? undefined : text;
  } catch {
    return undefined;
  }
}

/**
 * Refuses a file that a configuration cannot be stored in, before anything is restored.
 *
 * @throws TypeError where the point has none, or there is such a file.
 */
export function checkConfigurationFile(path: string, configuration: unknown): void {
  if (configuration === null) {
    throw new TypeError(
      'the restore point keeps no configuration of the machine: leave out --configuration',
    );
  }
  if (!existsSync(path)) return;
  throw new TypeError(
    `${path} is there, and a configuration replaces nothing: name another file (--configuration)`,
  );
}

/**
 * Stores what a restore point keeps: a text as it was, anything else as JSON.
 *
 * @throws LacunaError ERR_DEVICE_OPEN
 */
export async function storeConfiguration(path: string, configuration: unknown): Promise<void> {
  const isText = typeof configuration === 'string';
  const text = isText ? configuration : `${JSON.stringify(configuration, null, 2)}\n`;
  checkConfigurationFile(path, configuration);
  await storeFile('store the configuration in', path, text);
}
