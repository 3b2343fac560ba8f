/** Names that Node cannot pass on as they are: it would find, or make, another file. */
import { readFileSync, readlinkSync } from 'node:fs';

/** What Node puts in the place of bytes that are not UTF-8. */
const REPLACEMENT = '\ufffd';

/**
 * Refuses arguments that are not valid UTF-8, and to run in a folder of such a name.
 *
 * @throws TypeError
 */
export function checkReadable(argv: readonly string[]): void {
  if (argv.some((argument) => argument.includes(REPLACEMENT))) {
    const given = givenArguments(argv.length);
    for (const [index, argument] of argv.entries()) {
      if (!argument.includes(REPLACEMENT) || given?.[index]?.equals(Buffer.from(argument)))
        continue;
      throw new TypeError(
        `argument ${index + 1} (${argument}) is not valid UTF-8, so that another file would be meant: rename the file, or give it a second name with ln`,
      );
    }
  }
  if (!process.cwd().includes(REPLACEMENT) || isReadable(currentFolder())) return;
  throw new TypeError(
    'the name of the current folder, or of one above it, is not valid UTF-8: run the command in another one',
  );
}

/** The last arguments as bytes; undefined where the system does not tell. */
function givenArguments(count: number): Buffer[] | undefined {
  try {
    const parts = split(readFileSync('/proc/self/cmdline'));
    return parts.slice(parts.length - count);
  } catch {
    return undefined;
  }
}

function split(bytes: Buffer): Buffer[] {
  const parts: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const end = bytes.indexOf(0, at);
    parts.push(bytes.subarray(at, end < 0 ? bytes.length : end));
    at = end < 0 ? bytes.length : end + 1;
  }
  return parts;
}

function currentFolder(): Buffer | undefined {
  try {
    return readlinkSync('/proc/self/cwd', 'buffer') as unknown as Buffer;
  } catch {
    return undefined;
  }
}

function isReadable(bytes: Buffer | undefined): boolean {
  return bytes !== undefined && Buffer.from(bytes.toString('utf8')).equals(bytes);
}
