import { type ExecFileException, execFile } from 'node:child_process';
import { LacunaError } from '../../errors/index.js';

/** A call may wait 30 s for a lock of libvirt's before it is refused. */
const TIMEOUT_MS = 60_000;
const MOST_OUTPUT = 2 ** 26;

/** A domain, as another process can find it again. */
export interface VirshDomain {
  /** The URI of the libvirt that runs it; absent for the default one. */
  readonly connect?: string | undefined;
  readonly uuid: string;
}

export interface VirshRunOptions {
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** It writes as well what a person would like to know. Default false. */
  readonly talks?: boolean | undefined;
}

/** Runs `virsh`, a process for each call, which is the way into libvirt that every host with libvirt has. */
export class Virsh {
  /** The URI of the libvirt that is asked; undefined for the default one. */
  readonly connect: string | undefined;

  constructor(connect?: string) {
    this.connect = connect;
  }

  /** How messages name this libvirt. */
  get name(): string {
    return this.connect ?? 'libvirt';
  }

  /**
   * Runs one command, and gives what it has written.
   *
   * @throws LacunaError ERR_LIBVIRT with the words of libvirt where the command fails, or where virsh cannot be run; ERR_TIMEOUT and
   *   ERR_ABORTED, after which the command may or may not have been done.
   */
  run(command: string, args: readonly string[], options: VirshRunOptions = {}): Promise<string> {
    const { timeoutMs = TIMEOUT_MS, signal, talks = false } = options;
    const quiet = talks ? [] : ['-q'];
    const connect = this.connect === undefined ? [] : ['-c', this.connect];
    return new Promise((resolve, reject) => {
      execFile(
        'virsh',
        [...quiet, ...connect, command, ...args],
        {
          // Messages are passed on, and are the same for everybody.
          env: { ...process.env, LC_ALL: 'C' },
          timeout: timeoutMs,
          killSignal: 'SIGKILL',
          maxBuffer: MOST_OUTPUT,
          signal,
        },
        (error, stdout, stderr) => {
          if (error === null) resolve(stdout);
          else reject(this.#failure(command, { error, stderr, timeoutMs, signal }));
        },
      );
    });
  }

  #failure(
    command: string,
    {
      error,
      stderr,
      timeoutMs,
      signal,
    }: {
      error: ExecFileException;
      stderr: string;
      timeoutMs: number;
      signal: AbortSignal | undefined;
    },
  ): LacunaError {
    const device = this.name;
    if (signal?.aborted) {
      return new LacunaError('ERR_ABORTED', `Aborted: virsh ${command} at ${device}`, {
        ...{ device, cause: signal.reason },
      });
    }
    if (error.killed) {
      const what = `${device}: virsh ${command} did not end within ${timeoutMs / 1000} s`;
      return new LacunaError('ERR_TIMEOUT', what, { device, cause: error, retryable: true });
    }
    if (typeof error.code === 'string') {
      const what = `Cannot run virsh (${error.code}), through which libvirt is reached: install libvirt's clients`;
      return new LacunaError('ERR_LIBVIRT', what, { device, cause: error, errno: error.code });
    }
    const words = stderr
      .replaceAll(/^error: /gm, '')
      .trim()
      .replaceAll(/\s*\n\s*/g, ': ');
    const what = `${device}: libvirt refuses ${command}: ${words || 'without saying why'}`;
    return new LacunaError('ERR_LIBVIRT', what, { device, cause: error });
  }
}
