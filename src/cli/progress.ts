import type { SingleBar } from 'cli-progress';
import type { Shell } from './shell.js';
import { formatBytes, formatDuration, formatRate } from './units.js';

/** A moment of work that takes long. */
export interface Moment {
  /** What is being done, for people. */
  phase: string;
  /** 0 while it is not known yet, or nobody can know it. */
  totalBytes: number;
  doneBytes: number;
  elapsedMs: number;
}

/** Rates are told over this much of the recent past: steady to read, quick to follow a change. */
const RATE_WINDOW_MS = 4000;

/** How fast it goes now, from the moments of the last few seconds. */
export class RateMeter {
  readonly #moments: Moment[] = [];

  /** Takes the newest moment and returns bytes per millisecond; 0 while nothing is known. */
  add(moment: Moment): number {
    const moments = this.#moments;
    moments.push(moment);
    while (moments.length > 2 && moment.elapsedMs - moments[0].elapsedMs > RATE_WINDOW_MS) {
      moments.shift();
    }
    const ms = moment.elapsedMs - moments[0].elapsedMs;
    return ms > 0 ? (moment.doneBytes - moments[0].doneBytes) / ms : 0;
  }
}

export interface BarStyle {
  /** Columns in all. */
  width: number;
  unicode: boolean;
}

/** One line that shows a moment: a bar, the share, the amount, the rate and the time left. */
export function progressLine(moment: Moment, bytesPerMs: number, style: BarStyle): string {
  const { phase, totalBytes, doneBytes } = moment;
  if (totalBytes === 0) return doneBytes === 0 ? phase : `${phase}: ${formatBytes(doneBytes)}`;
  const share = Math.min(1, doneBytes / totalBytes);
  const parts = [
    `${Math.floor(share * 100)}`.padStart(3).concat(' %'),
    `${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}`,
  ];
  if (bytesPerMs > 0) {
    parts.push(formatRate(bytesPerMs, 1));
    parts.push(`${formatDuration((totalBytes - doneBytes) / bytesPerMs)} left`);
  }
  const text = `${phase} ${parts.join('  ')}`;
  const cells = Math.max(0, Math.min(40, style.width - text.length - 4));
  if (cells < 8) return text.slice(0, style.width);
  const full = Math.round(share * cells);
  const [on, off] = style.unicode ? ['█', '░'] : ['#', '-'];
  return `${phase} [${on.repeat(full)}${off.repeat(cells - full)}] ${parts.join('  ')}`;
}

/** How far some work is; a stream has no total. */
export interface Progress {
  readonly doneBytes: number;
  readonly totalBytes?: number;
}

/** Shows a bar while some work tells how far it is. */
export async function withBar<T>(
  phase: string,
  shell: Shell,
  work: (show: (progress: Progress) => void) => Promise<T>,
): Promise<T> {
  const bar = await ProgressBar.start(shell);
  const started = performance.now();
  try {
    return await work(({ doneBytes, totalBytes = 0 }) => {
      bar.show({ phase, doneBytes, totalBytes, elapsedMs: performance.now() - started });
    });
  } finally {
    bar.stop();
  }
}

/** A bar on a terminal, and nothing anywhere else. */
export class ProgressBar {
  readonly #bar: SingleBar | undefined;
  readonly #rate = new RateMeter();

  static async start(shell: Shell): Promise<ProgressBar> {
    const stream = shell.progressStream;
    if (stream === undefined) return new ProgressBar();
    // Loaded when there is somebody to look at it.
    const { SingleBar } = (await import('cli-progress')).default;
    const bar = new SingleBar({
      stream,
      clearOnComplete: true,
      hideCursor: true,
      format: (_options, _params, payload: { moment?: Moment; bytesPerMs?: number }) => {
        const style = { width: (stream.columns || 80) - 1, unicode: shell.unicode };
        return payload.moment ? progressLine(payload.moment, payload.bytesPerMs ?? 0, style) : '';
      },
    });
    bar.start(1, 0, {});
    return new ProgressBar(bar);
  }

  private constructor(bar?: SingleBar) {
    this.#bar = bar;
  }

  show(moment: Moment): void {
    if (this.#bar === undefined) return;
    const share = moment.totalBytes > 0 ? moment.doneBytes / moment.totalBytes : 0;
    this.#bar.update(share, { moment, bytesPerMs: this.#rate.add(moment) });
  }

  /** Takes the bar off the terminal, so that text can follow. */
  stop(): void {
    this.#bar?.stop();
  }
}
