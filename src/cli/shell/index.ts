export type { CommandRow } from './command-row.js';
export { Exit, exitCodeOf } from './exit.js';
export { printFailure } from './failure-document.js';
export {
  collect,
  FORMAT_FLAG,
  FORMAT_TEXT,
  IMAGE_FORMAT_TEXT,
  SHARE_FLAG,
  SHARE_TEXT,
} from './flags.js';
export { setFormatFlag, withCode } from './format-flags.js';
export {
  ENDING_SIGNALS,
  exitCodeOfAbort,
  exitCodeOfSignal,
  Interruption,
  secondSignal,
} from './interruption.js';
export { noteError } from './note-error.js';
export { noteStep } from './note-step.js';
export { hintOf } from './other-tools.js';
export { oneLine, printable } from './printable.js';
export { checkReadable } from './readable-names.js';
export { type ProgressForm, processShell, type Shell } from './shell.js';
export { type ActivatedSocket, takeActivatedSockets } from './socket-activation.js';
export { noteWarnings } from './warnings.js';
