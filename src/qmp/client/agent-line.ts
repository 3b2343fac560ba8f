import { randomInt } from 'node:crypto';
import { abortedError, LacunaError } from '../../errors/index.js';
import { afterWaiting, onAbort } from '../../util/index.js';
import { commandText, type JsonObject, messageOf, protocolError } from '../wire/index.js';
import { nameOf, type QmpAddress } from './address.js';
import { disconnected, locate, refused, unanswered } from './failures.js';
import { Link } from './link.js';

export interface LineLimits {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** What the next object that comes is for; undefined while nothing was asked, and what comes is dropped. */
type Taker = (object: JsonObject) => void;

interface Wait {
  readonly end: (failure: LacunaError) => void;
}

/** Ends with what somebody before has begun to say, and is answered by itself where it was the first. */
const RESET = new Uint8Array([0xff]);

/**
 * One connection to a guest agent, over which one command at a time is asked. Answers have no id: so after one was not
 * waited for, the line is synchronized before the next is asked.
 */
export class AgentLine {
  readonly name: string;
  failure: LacunaError | undefined;
  #link: Link | undefined;
  #take: Taker | undefined;
  #delimited: (() => void) | undefined;
  #wait: Wait | undefined;
  #isSynced = false;

  /** @throws LacunaError ERR_QMP_DISCONNECTED, ERR_ABORTED */
  static async open(address: QmpAddress, limits: LineLimits): Promise<AgentLine> {
    const line = new AgentLine(`agent ${nameOf(address)}`);
    const events = {
      object: (object: JsonObject) => line.#take?.(object),
      delimiter: () => line.#delimited?.(),
      closed: (failure: LacunaError) => line.#closed(failure),
    };
    try {
      line.#link = await Link.open(address, events, limits);
    } catch (error) {
      throw locate(error as LacunaError, line.name);
    }
    return line;
  }

  private constructor(name: string) {
    this.name = name;
  }

  /**
   * Drops whatever the agent has said to somebody else, or too late.
   *
   * @throws LacunaError ERR_AGENT_ABSENT where nothing answers.
   */
  async sync(limits: LineLimits): Promise<void> {
    const id = randomInt(1, 2 ** 31);
    this.#isSynced = false;
    try {
      await this.#exchange(limits, (done) => {
        // Only what follows the delimiter is an answer, and only ours has the number.
        this.#delimited = () => {
          this.#take = (object) => {
            this.#take = undefined;
            if (object.return === id) done();
          };
        };
        this.#link!.send(RESET);
        this.#link!.send(commandText('guest-sync-delimited', { id }, undefined));
      });
    } catch (error) {
      if (!(error instanceof LacunaError) || error.code === 'ERR_ABORTED') throw error;
      throw absent(this.name, error);
    }
    this.#isSynced = true;
  }

  /** Asks one command, synchronized first where that is needed; `sync` has limits of its own. */
  async ask(
    command: string,
    args: object | undefined,
    limits: LineLimits,
    syncLimits: LineLimits,
  ): Promise<unknown> {
    if (!this.#isSynced) await this.sync(syncLimits);
    let isAnswered = false;
    try {
      return await this.#exchange<unknown>(limits, (done, failed) => {
        this.#take = (object) => {
          const message = messageOf(object);
          isAnswered = message.type === 'return' || message.type === 'error';
          if (message.type === 'return') done(message.value);
          else if (message.type === 'error') failed(refused(this.name, command, message));
          else throw protocolError('it sent an object that is no answer');
        };
        this.#link!.send(commandText(command, args, undefined));
      });
    } catch (error) {
      if (isAnswered || !(error instanceof LacunaError)) throw error;
      this.#isSynced = false;
      throw error.code === 'ERR_ABORTED' ? error : unanswered(this.name, command, error);
    }
  }

  async close(): Promise<void> {
    await this.#link?.close(disconnected('the connection was closed here'));
  }

  #exchange<T = void>(
    { timeoutMs, signal }: LineLimits,
    begin: (done: (value: T) => void, failed: (error: LacunaError) => void) => void,
  ): Promise<T> {
    if (this.failure !== undefined) return Promise.reject(this.failure);
    if (signal?.aborted) return Promise.reject(abortedError(signal));
    return new Promise((resolve, reject) => {
      const stop = () => {
        stopWaiting();
        signal?.removeEventListener('abort', abort);
        this.#take = undefined;
        this.#delimited = undefined;
        this.#wait = undefined;
      };
      const failed = (error: LacunaError) => {
        stop();
        reject(error);
      };
      const abort = () => failed(abortedError(signal));
      const late = () =>
        failed(new LacunaError('ERR_TIMEOUT', `no answer came within ${timeoutMs} ms`));
      const stopWaiting = afterWaiting(timeoutMs, late);
      if (signal !== undefined) onAbort(signal, abort);
      this.#wait = { end: failed };
      const done = (value: T) => {
        stop();
        resolve(value);
      };
      begin(done, failed);
    });
  }

  #closed(failure: LacunaError): void {
    this.failure = locate(failure, this.name);
    this.#wait?.end(failure);
  }
}

function absent(device: string, cause: LacunaError): LacunaError {
  return new LacunaError(
    'ERR_AGENT_ABSENT',
    `${device}: no guest agent answers (${cause.message}); see that qemu-guest-agent runs in the guest, and that no other client has its socket`,
    { device, cause, retryable: true },
  );
}
