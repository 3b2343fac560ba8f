import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { LacunaError } from '../../errors/index.js';
import type { MigrationCapability, QmpAddress } from '../../qmp/index.js';
import { ownFile } from '../../util/index.js';

const PROGRAM = 'qemu/migrate/guard-process.js';

/** What a guard has to know. */
export interface Guarded {
  readonly source: QmpAddress;
  readonly destination: QmpAddress;
  /** Images on the destination. */
  readonly disks: readonly { readonly target: string; readonly format: string }[];
  /** Whether the machine is to run, as far as is known: see {@link MigrationGuard.tell}. */
  readonly mustRun: boolean;
  /** What the destination gets back once the machine runs there. */
  readonly capabilities: readonly MigrationCapability[];
  /** The folder of the migration, which is of no use once the machine has moved. */
  readonly folder: string;
}

/**
 * A process that decides a migration when this one dies in the middle: else the machine would stand still until somebody
 * told one of the two sides to go on.
 */
export class MigrationGuard {
  readonly #child: ChildProcess;
  readonly #guarded: Guarded;

  /** @throws LacunaError ERR_MACHINE_BUSY where it does not start */
  static async start(guarded: Guarded): Promise<MigrationGuard> {
    // Of a session of its own: what a terminal sends to this process is not for the guard.
    const child = fork(fileURLToPath(ownFile(PROGRAM)), {
      detached: true,
      execArgv: [],
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    });
    const ended = once(child, 'exit').then(() => Promise.reject(new Error('it ended at once')));
    const ready = once(child, 'message');
    try {
      child.send(guarded);
      await Promise.race([ready, ended]);
    } catch (cause) {
      const message = `the process that guards a migration does not start: ${(cause as Error).message}`;
      throw new LacunaError('ERR_MACHINE_BUSY', message, { cause, retryable: true });
    }
    ended.catch(() => {});
    // It is there for when this process ends.
    child.unref();
    child.channel?.unref();
    return new MigrationGuard(child, guarded);
  }

  private constructor(child: ChildProcess, guarded: Guarded) {
    this.#child = child;
    this.#guarded = guarded;
    child.on('error', () => {});
  }

  /** Whether the machine is to run, once QEMU has stopped it. Resolves when the process has it for sure, or is gone. */
  async tell(mustRun: boolean): Promise<void> {
    await new Promise((resolve) => this.#child.send({ ...this.#guarded, mustRun }, resolve));
  }

  /** There is nothing to guard any more. */
  close(): void {
    this.#child.kill('SIGKILL');
  }
}
