import { readFileSync } from 'node:fs';
import type { WriteStream } from 'node:tty';

/** Back to the first column, and nothing left of what stood behind it. */
const ERASE = '\r\x1b[K';

/**
 * The last line of a terminal, on which a bar is drawn again and again. Messages go above it. The cursor is never hidden
 * nor moved to another line, so that a process that is stopped or killed leaves a terminal that works.
 */
export class TerminalLine {
  readonly #stream: Pick<WriteStream, 'write'>;
  readonly #isForeground: () => boolean;
  /** Empty where nothing is drawn. */
  #text = '';
  #isDrawn = false;

  constructor(stream: Pick<WriteStream, 'write'>, isForeground = isInForeground) {
    this.#stream = stream;
    this.#isForeground = isForeground;
  }

  /** Draws one line, no longer than the terminal is wide, in place of the one before. */
  draw(text: string): void {
    this.#text = text;
    // After Ctrl-Z and "bg" the last line is the shell's.
    if (!this.#isForeground()) return;
    this.#stream.write(`${ERASE}${text}`);
    this.#isDrawn = true;
  }

  /** Takes the line off the terminal, so that text can follow. */
  clear(): void {
    this.#text = '';
    this.#erase();
  }

  /** Lets `write` write whole lines above the line. */
  above(write: () => void): void {
    const text = this.#text;
    this.#erase();
    write();
    if (text !== '') this.draw(text);
  }

  #erase(): void {
    if (this.#isDrawn && this.#isForeground()) this.#stream.write(ERASE);
    this.#isDrawn = false;
  }
}

/** Whether the terminal is with this process, and not with the shell that has put it into the background. */
function isInForeground(): boolean {
  try {
    const stat = readFileSync('/proc/self/stat', 'latin1');
    // Behind the name, which may hold anything: state, parent, process group, session, terminal, group in front.
    const [, , group, , , front] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return group === front || front === '-1';
  } catch {
    return true;
  }
}
