import { Daemon, type DaemonOptions } from 'lacuna/daemon';
import { expect, onTestFinished } from 'vitest';
import { COMMANDS } from '#dist/daemon/commands/index.js';
import { check } from '#dist/daemon/schema/index.js';

/** A daemon in this process that ends with the test, and all that it has told. */
export class TestDaemon {
  readonly daemon: Daemon;
  readonly events: { event: string; data: Record<string, unknown> }[] = [];
  #news: (() => void)[] = [];

  constructor(options: DaemonOptions = {}) {
    this.daemon = new Daemon({
      ...options,
      onEvent: (event, data) => {
        this.events.push({ event, data: { ...data } });
        for (const wake of this.#news.splice(0)) wake();
      },
    });
    onTestFinished(() => this.daemon.close().catch(() => {}));
  }

  /** Carries out a command, and checks that its answer is as the schema says. */
  async run(name: string, args: object = {}): Promise<never> {
    // Through JSON, as a client would have it.
    const answer = await this.daemon.execute(name, JSON.parse(JSON.stringify(args)));
    const { answer: shape } = COMMANDS.find((command) => command.name === name)!;
    if (shape === undefined) expect(answer, name).toBeUndefined();
    else check({ shape }, JSON.parse(JSON.stringify(answer)));
    return answer as never;
  }

  /** What a command is refused with. */
  async refusal(name: string, args: object = {}): Promise<string> {
    return this.daemon.execute(name, args).then(
      () => expect.unreachable(`${name} was not refused`),
      (error: Error) => error.message,
    );
  }

  /** The states that a job has told, in order. */
  states(id: string): unknown[] {
    return this.events
      .filter(({ event, data }) => event === 'JOB_STATUS_CHANGE' && data.id === id)
      .map(({ data }) => data.status);
  }

  /** Waits until a job has told a state. */
  async state(id: string, status: string): Promise<void> {
    while (!this.states(id).includes(status)) {
      await new Promise<void>((resolve) => this.#news.push(resolve));
    }
  }

  /** Waits for an event. */
  async event(name: string): Promise<Record<string, unknown>> {
    for (;;) {
      const found = this.events.find(({ event }) => event === name);
      if (found !== undefined) return found.data;
      await new Promise<void>((resolve) => this.#news.push(resolve));
    }
  }
}
