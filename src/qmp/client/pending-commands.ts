import { abortedError, LacunaError } from '../../errors/index.js';
import { afterWaiting, onAbort } from '../../util/index.js';
import { refused, unanswered } from './failures.js';

/** How long a command may take, and who may end the waiting. */
export interface QmpCommandOptions {
  /** Milliseconds until the command counts as unanswered. Default 60,000; 0 for no limit. */
  readonly timeoutMs?: number | undefined;
  /**
   * Fires to end waiting: the call fails with ERR_ABORTED. The command was sent all the same, and is carried out or not
   * as QEMU pleases.
   */
  readonly signal?: AbortSignal | undefined;
}

interface Pending {
  readonly command: string;
  settle(outcome: { value: unknown } | { error: LacunaError }): void;
}

const LIMIT_MS = 60_000;

/** Commands that were sent and are not answered yet. */
export class PendingCommands {
  readonly #name: string;
  readonly #pending = new Map<number, Pending>();
  /** Those that nobody waits for any more, and whose answers may still come. */
  readonly #givenUp = new Set<number>();
  #lastId = 0;

  constructor(name: string) {
    this.#name = name;
  }

  get size(): number {
    return this.#pending.size;
  }

  /** Sends a command with an id of its own, and waits for the answer. */
  add(
    command: string,
    send: (id: number) => void,
    { timeoutMs = LIMIT_MS, signal }: QmpCommandOptions,
  ): Promise<unknown> {
    if (signal?.aborted) return Promise.reject(abortedError(signal));
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      const end = (error: LacunaError) => {
        this.#givenUp.add(id);
        this.#settle(id, { error });
      };
      const abort = () => end(abortedError(signal));
      const late = () => end(unanswered(this.#name, command, timedOut(timeoutMs)));
      const stopWaiting = timeoutMs === 0 ? () => {} : afterWaiting(timeoutMs, late);
      if (signal !== undefined) onAbort(signal, abort);
      const settle: Pending['settle'] = (outcome) => {
        stopWaiting();
        signal?.removeEventListener('abort', abort);
        if ('value' in outcome) resolve(outcome.value);
        else reject(outcome.error);
      };
      this.#pending.set(id, { command, settle });
      send(id);
    });
  }

  /** The answer to the command with this id; false if there is none. */
  answered(id: unknown, value: unknown): boolean {
    return this.#settle(id, { value });
  }

  /** The same for a refusal. */
  refused(id: unknown, error: { errorClass: string; description: string }): boolean {
    const command = this.#pending.get(id as number)?.command ?? '';
    return this.#settle(id, { error: refused(this.#name, command, error) });
  }

  /** The connection has ended. */
  lost(cause: LacunaError): void {
    for (const [id, { command }] of [...this.#pending]) {
      this.#settle(id, { error: unanswered(this.#name, command, cause) });
    }
  }

  #settle(id: unknown, outcome: { value: unknown } | { error: LacunaError }): boolean {
    const pending = this.#pending.get(id as number);
    if (pending === undefined) return this.#givenUp.delete(id as number);
    this.#pending.delete(id as number);
    pending.settle(outcome);
    return true;
  }
}

function timedOut(limitMs: number): LacunaError {
  return new LacunaError('ERR_TIMEOUT', `no answer came within ${limitMs} ms`);
}
