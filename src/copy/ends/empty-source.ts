import { type BlockDevice, type FileDescription, isRemote } from '../../block/index.js';
import { LacunaError } from '../../errors/index.js';
import { statIfThere } from '../../files/index.js';
import { type CopyOptions, isPartial, type PlanScope } from '../options/index.js';

/** An export that is not ready yet may say that it has no bytes, and a file that holds none replaces a good copy. */
export function refuseNothing(
  source: BlockDevice,
  file: FileDescription | undefined,
  { allowEmpty = false, ...scope }: PlanScope & Pick<CopyOptions, 'allowEmpty'>,
): void {
  if (source.size > 0 || allowEmpty || isPartial(scope)) return;
  const replaced = file === undefined ? undefined : statIfThere(file.filename);
  const replaces = replaced !== undefined && replaced.size > 0n;
  if (!replaces && !isRemote(source.description)) return;
  const left = replaces ? `, and ${file?.filename} was left as it is` : '';
  const message = `${source.name} has 0 bytes${left}: check that it is ready, or say --allow-empty (allowEmpty) if it is meant to be empty`;
  throw new LacunaError('ERR_COPY_EMPTY', message, { device: source.name });
}
