/** What the command says beside the report of a copy: what was left out, and what can be gone on with. */
import { statSync } from 'node:fs';
import type { CopyJob, CopyReport } from '../../../copy/index.js';
import { type ErrorCode, LacunaError } from '../../../errors/index.js';
import { counted } from '../../../util/index.js';
import { noteMissing } from '../../device/index.js';
import { Exit, type Shell, withCode } from '../../shell/index.js';
import { formatBytes } from '../../text/index.js';

/** Ranges that people are told of; programs get all of them in the report. */
const MOST_TOLD = 10;

/** Says what is missing, and sets the exit code that says so. */
export function noteLeftOut(
  { leftOutBytes, errors, moreErrors, missing }: CopyReport,
  shell: Shell,
): void {
  noteMissing({ missing }, shell);
  if (errors.length === 0) return;
  shell.exitCode = Exit.leftOut;
  for (const { side, offset, length, error } of errors.slice(0, MOST_TOLD)) {
    const what = `${counted(length, 'byte')} at ${offset} of the ${side}`;
    shell.note(`lacuna: left out ${what}: ${withCode(error, shell)}\n`);
  }
  const more = Math.max(0, errors.length - MOST_TOLD) + moreErrors;
  if (more > 0) shell.note(`lacuna: and ${counted(more, 'more range')}; --json lists all\n`);
  shell.note(`lacuna: left out ${formatBytes(leftOutBytes)} in all\n`);
}

/** Refusals of a resume file, which the same command would meet again. */
const NOT_RESUMED: readonly ErrorCode[] = [
  'ERR_RESUME_BUSY',
  'ERR_RESUME_CORRUPT',
  'ERR_RESUME_MISMATCH',
];

/** Says that nothing is lost. */
export function noteResumable({ resumable }: CopyJob, error: unknown, shell: Shell): void {
  if (resumable === undefined) return;
  if (error instanceof LacunaError && NOT_RESUMED.includes(error.code)) return;
  const left = `${formatBytes(resumable.remainingBytes)} remain`;
  shell.note(`lacuna: ${left} (${resumable.file}); run the same command again to go on\n`);
}

/** Says where what was written is, and how the next copy would be able to go on. */
export function noteUnfinished(
  {
    unfinished,
    partlyWritten,
    partOfImage,
  }: Pick<CopyJob, 'unfinished'> & Partial<Pick<CopyJob, 'partlyWritten' | 'partOfImage'>>,
  error: unknown,
  shell: Pick<Shell, 'note'>,
): void {
  if (partOfImage !== undefined) {
    shell.note(
      `lacuna: ${partOfImage} holds a part of the new image, which nothing opens, and not what it held before; begin the copy again\n`,
    );
  }
  if (partlyWritten !== undefined) {
    shell.note(
      `lacuna: ${partlyWritten} was written in place: it holds a part of the copy, and else what it held before\n`,
    );
  }
  if (unfinished !== undefined) {
    shell.note(`lacuna: what was written until then is in ${unfinished}, which is not whole\n`);
  }
  const isStop = error instanceof LacunaError && error.code === 'ERR_JOB_STOPPED';
  if ((unfinished ?? partlyWritten) === undefined || !isStop) return;
  shell.note('lacuna: a copy that is begun with --resume FILE goes on where it was stopped\n');
}

const FULL = new Set(['ENOSPC', 'EDQUOT']);

/** Says what needs no room for two files, where there is one that would be replaced. */
export function noteNoRoom(target: string, error: unknown, shell: Pick<Shell, 'note'>): void {
  if (!(error instanceof LacunaError) || !FULL.has(error.errno ?? '')) return;
  // Not of a resume file or a digest, which may lie elsewhere.
  if (error.code !== 'ERR_DEVICE_IO') return;
  if (!statSync(target, { throwIfNoEntry: false })?.isFile()) return;
  shell.note(
    `lacuna: ${target} is there until the copy is whole; with --in-place it is written over, which needs no room for two\n`,
  );
}
