/** What a demo tells, a step at a time. */
import type { Shell } from '../../shell/index.js';

export class Story {
  protected readonly shell: Shell;
  #step = 0;

  constructor(shell: Shell) {
    this.shell = shell;
  }

  /** Begins a step. */
  protected title(text: string): Promise<void> {
    this.#step++;
    const title = this.shell.colors.bold(`${this.#step}. ${text}`);
    return this.shell.paint(`${this.#step > 1 ? '\n' : ''}${title}\n`);
  }

  protected say(...lines: string[]): Promise<void> {
    return this.shell.print(indented(lines));
  }
}

/** Lines of a step, below its title. */
export function indented(lines: readonly string[]): string {
  return lines.map((line) => (line === '' ? '\n' : `   ${line}\n`)).join('');
}
