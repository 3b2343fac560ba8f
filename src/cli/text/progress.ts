import type { Shell } from '../shell/index.js';
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

/** A bar on a terminal, and nothing anywhere else; everywhere what SIGUSR1 is answered with. */
export class ProgressBar {
  readonly #shell: Shell;
  #moment: Moment;
  #drawnMs = Number.NEGATIVE_INFINITY;

  constructor(phase: string, shell: Shell) {
    this.#shell = shell;
    this.#moment = { phase, totalBytes: 0, doneBytes: 0, bytesPerSecond: 0, elapsedMs: 0 };
    shell.tellProgress = () => progressText(this.#moment);
  }

  show(moment: Moment): void {
    const { phase, doneBytes, totalBytes, elapsedMs } = moment;
    const isNews = phase !== this.#moment.phase || doneBytes === totalBytes;
    this.#moment = moment;
    if (!isNews && elapsedMs - this.#drawnMs < DRAW_EVERY_MS) return;
    this.#drawnMs = elapsedMs;
    const { progressLine: line, progressWidth, unicode } = this.#shell;
    line?.draw(progressLine(moment, { width: progressWidth - 1, unicode }));
  }

  /** Takes the bar off the terminal, so that text can follow. */
  stop(): void {
    this.#shell.tellProgress = undefined;
    this.#shell.progressLine?.clear();
  }
}
