/** `--rate-file`: the rate of a copy in a file, which somebody may change while the copy runs. */
import { statSync } from 'node:fs';
import type { CopyJob } from '../../../copy/index.js';
import { parseSize } from '../../../util/index.js';
import type { Shell } from '../../shell/index.js';
import { formatRate, readText } from '../../text/index.js';

/**
 * Bytes per second, as `--rate` takes them; undefined for no limit, which an empty file means.
 *
 * @throws LacunaError ERR_DEVICE_OPEN; TypeError where the file holds no rate.
 */
export async function readRate(path: string): Promise<number | undefined> {
  if (statSync(path, { throwIfNoEntry: false })?.isFIFO()) {
    throw new TypeError(
      `--rate-file ${path} is a pipe, and cannot be read again: name a regular file`,
    );
  }
  const text = (await readText(path, '--rate-file')).trim();
  if (text === '') return undefined;
  const rate = rateIn(text);
  if (rate !== undefined) return rate;
  throw new TypeError(
    `${path} must hold a rate in bytes per second, such as 50M, or nothing for no limit`,
  );
}

function rateIn(text: string): number | undefined {
  try {
    return parseSize(text) || undefined;
  } catch {
    return undefined;
  }
}

/**
 * While a copy runs, SIGHUP makes it read its rate again. A file that cannot be read, or that holds no rate, changes
 * nothing and is warned of.
 *
 * @returns what takes the signal away again
 */
export function followRateFile(path: string, job: CopyJob, shell: Shell): () => void {
  const again = async () => {
    try {
      const rate = await readRate(path);
      job.setRate(rate);
      const told = rate === undefined ? 'no limit' : formatRate(rate, 1000);
      shell.note(`lacuna: the rate is ${told} from now on\n`);
    } catch (error) {
      shell.note(`lacuna: warning: ${(error as Error).message}; the rate stays as it was\n`);
    }
  };
  const listener = () => void again();
  process.on('SIGHUP', listener);
  return () => void process.off('SIGHUP', listener);
}
