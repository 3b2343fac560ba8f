/**
 * The process that freezes a guest and thaws it again. It has the only connection to the agent, so nobody else could thaw: when
 * the process that began it is killed, stopped or hangs, this one thaws all the same, at the latest after a deadline. It
 * ends by itself.
 */
import { toWire } from '../../errors/index.js';
import { Serial } from '../../util/index.js';
import { connectAgent } from './connect-agent.js';
import type { Answer, Order, Ping, Taken } from './messages.js';
import { type FreezingAgent, thawFor } from './thaw.js';

/** Tries to thaw go on for so long. */
const THAW_MS = 60_000;

class Guard {
  readonly #turn = new Serial();
  #agent: FreezingAgent | undefined;
  #isFrozen = false;
  #wasLate = false;
  #thawed: number | undefined;
  #deadline: NodeJS.Timeout | undefined;

  /** Orders are carried out one after another; that the deadline has passed is one of them. */
  take(order: Order): Promise<Answer> {
    return this.#turn.run(async () => {
      try {
        return await this.#carryOut(order);
      } catch (error) {
        return { failure: toWire(error) };
      }
    });
  }

  /** The process that gave the orders is gone. */
  end(): Promise<void> {
    return this.#turn.run(() => this.#thaw());
  }

  async #carryOut(order: Order): Promise<Answer> {
    if (order.order === 'connect') {
      this.#agent = await connectAgent(order.address);
      return {};
    }
    if (order.order === 'freeze') {
      return { count: await this.#freeze(order.timeoutMs, order.deadlineMs) };
    }
    await this.#thaw();
    const count = this.#thawed;
    return { wasLate: this.#wasLate, ...(count !== undefined && { count }) };
  }

  async #freeze(timeoutMs: number, deadlineMs: number): Promise<number> {
    this.#isFrozen = true;
    // Until it has frozen, the limit of the agent holds, and what fails is thawed at once.
    const count = await this.#agent!.freeze({ timeoutMs });
    this.#deadline = setTimeout(() => this.#late(), deadlineMs);
    return count;
  }

  #late(): void {
    void this.#turn.run(async () => {
      if (!this.#isFrozen) return;
      this.#wasLate = true;
      // A failure is told to who asks to thaw.
      await this.#thaw().catch(() => {});
    });
  }

  async #thaw(): Promise<void> {
    clearTimeout(this.#deadline);
    if (!this.#isFrozen || this.#agent === undefined) return;
    this.#thawed = await thawFor(this.#agent, THAW_MS);
    this.#isFrozen = false;
  }
}

const guard = new Guard();

process.on('message', (order: Order | Ping) => {
  // At once: a process that is stopped says nothing, and is taken for one that cannot thaw.
  say({ taken: true });
  if (order.order !== 'ping') void guard.take(order).then(say);
});

/** That nobody hears it any more is told by the event. */
function say(what: Answer | Taken): void {
  if (process.connected) process.send!(what, undefined, undefined, () => {});
}

process.once('disconnect', () => {
  guard.end().then(
    () => process.exit(0),
    () => process.exit(1),
  );
});

// What ends the process that began this one must not end this one before the guest has thawed.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
