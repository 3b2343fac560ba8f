import type { ProgressForm, Shell } from '../shell/index.js';
import { formatBytes, formatDuration, formatRate } from './units.js';

/** A moment of work that takes long. */
export interface Moment {
  /** What is being done, for people. */
  phase: string;
  /** 0 while it is not known yet, or nobody can know it. */
  totalBytes: number;
  doneBytes: number;
  /** Of late; 0 while that is not known. */
  bytesPerSecond: number;
  /** Time left at that rate; absent where nothing can be said. */
  remainingMs?: number;
  elapsedMs: number;
}

export interface BarStyle {
  /** Columns in all. */
  width: number;
  unicode: boolean;
}

/** One line that shows a moment: a bar, the share, the amount, the rate and the time left. */
export function progressLine(moment: Moment, style: BarStyle): string {
  const { phase, totalBytes, doneBytes } = moment;
  const text = progressText(moment);
  const cells = Math.max(0, Math.min(40, style.width - text.length - 4));
  if (totalBytes === 0 || cells < 8) return text.slice(0, style.width);
  const full = Math.round(Math.min(1, doneBytes / totalBytes) * cells);
  const [on, off] = style.unicode ? ['█', '░'] : ['#', '-'];
  return `${phase} [${on.repeat(full)}${off.repeat(cells - full)}]${text.slice(phase.length)}`;
}

/** The same without the bar. */
function progressText(moment: Moment): string {
  const { phase, totalBytes, doneBytes, bytesPerSecond, remainingMs } = moment;
  if (totalBytes === 0) return doneBytes === 0 ? phase : `${phase}: ${formatBytes(doneBytes)}`;
  const share = Math.min(1, doneBytes / totalBytes);
  const parts = [
    `${Math.floor(share * 100)}`.padStart(3).concat(' %'),
    `${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}`,
  ];
  if (bytesPerSecond > 0) parts.push(formatRate(bytesPerSecond, 1000));
  if (remainingMs !== undefined) parts.push(`${formatDuration(remainingMs)} left`);
  return `${phase} ${parts.join('  ')}`;
}

/** Between two drawings of a bar. */
const DRAW_EVERY_MS = 100;

/** Between two lines, or documents, of a log. */
const LOG_EVERY_MS = 3000;

/** A moment as a program reads it; what the job itself tells is handed in with it. */
type Logged = Moment & { readonly document?: object | undefined };

/**
 * A bar on a terminal; where there is none, or programs read, lines in a log for those who ask for them; everywhere what
 * SIGUSR1 is answered with.
 */
export class ProgressBar {
  readonly #shell: Shell;
  #moment: Moment;
  #drawnMs = Number.NEGATIVE_INFINITY;
  #loggedMs = Number.NEGATIVE_INFINITY;
  /** What the last line of a log said. */
  #logged: Moment | undefined;

  constructor(phase: string, shell: Shell) {
    this.#shell = shell;
    this.#moment = { phase, totalBytes: 0, doneBytes: 0, bytesPerSecond: 0, elapsedMs: 0 };
    shell.tellProgress = () => progressText(this.#moment);
  }

  show(moment: Logged): void {
    const { phase, doneBytes, totalBytes, elapsedMs } = moment;
    const isNews = phase !== this.#moment.phase || doneBytes === totalBytes;
    this.#moment = moment;
    const { isQuiet, progressForm, progressLine: line } = this.#shell;
    if (isQuiet) return;
    if (progressForm === 'json' || (progressForm === 'line' && line === undefined)) {
      this.#log(moment, progressForm);
      return;
    }
    if (!isNews && elapsedMs - this.#drawnMs < DRAW_EVERY_MS) return;
    this.#drawnMs = elapsedMs;
    const { progressWidth, unicode } = this.#shell;
    line?.draw(progressLine(moment, { width: progressWidth - 1, unicode }));
  }

  /** A phase that begins and the end of all are told at once, everything else from time to time. */
  #log(moment: Logged, form: ProgressForm): void {
    const { phase, doneBytes, totalBytes, elapsedMs, document } = moment;
    const isWhole = totalBytes > 0 && doneBytes === totalBytes;
    const last = this.#logged;
    const isNews =
      phase !== last?.phase ||
      (isWhole && (last.doneBytes !== doneBytes || last.totalBytes !== totalBytes));
    if (!isNews && elapsedMs - this.#loggedMs < LOG_EVERY_MS) return;
    this.#loggedMs = elapsedMs;
    this.#logged = moment;
    const told = { type: 'progress', ...(document ?? moment) };
    this.#shell.note(
      form === 'json' ? `${JSON.stringify(told)}\n` : `lacuna: ${progressText(moment)}\n`,
    );
  }

  /** Takes the bar off the terminal, so that text can follow. */
  stop(): void {
    this.#shell.tellProgress = undefined;
    this.#shell.progressLine?.clear();
  }
}
