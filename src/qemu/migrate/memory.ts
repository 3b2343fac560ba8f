/** How the memory of a machine moves, and with it the machine: by QEMU's own migration, steered over both monitors. */
import { setTimeout as sleep } from 'node:timers/promises';
import { LacunaError } from '../../errors/index.js';
import type {
  EventStream,
  MigrationCapability,
  MigrationInfo,
  Monitor,
  RunStatus,
} from '../../qmp/index.js';

/** QEMU waits before the switch, with the machine standing still, until it is told to go on. */
export const WAITS = 'pre-switchover';

const WANTED_OF_SOURCE = ['events', 'return-path', 'pause-before-switchover'];
const WANTED_OF_DESTINATION = ['events', 'return-path'];
const EVENTS = ['MIGRATION', 'STOP', 'RESUME'];
/** The state of a machine that QEMU has stopped for the switch. */
const STOPPED_BY_QEMU = 'finish-migrate';

/** Where no event is heard, QEMU is asked after so long at the latest. */
const LONGEST_PAUSE_MS = 200;
/** For a source that is handing over, while the machine stands still. */
const RECONNECT_MS = 3000;
/** For the destination to confirm that it has the machine, which stands still meanwhile. */
const CONFIRM_MS = 30_000;

/** A migration of the memory of a machine. */
export class MemoryMove implements Disposable {
  /** When the source has stopped, as this process has heard; undefined while it has not. */
  stoppedAt: number | undefined;
  /** When the destination has begun to run, likewise. */
  resumedAt: number | undefined;
  /** Whether the source has been told to hand over. */
  wasTold = false;
  readonly #source: Monitor;
  readonly #destination: Monitor;
  readonly #streams: EventStream[];
  #ring = () => {};
  #isRunning: boolean;
  #looking: Promise<void> = Promise.resolve();
  /** How often it has stopped or gone on since this process listens. */
  #changes = 0;
  /** Whether memory moves, or has moved. */
  #hasBegun = false;
  #hasRung = false;

  /** @param isRunning whether the machine runs, as was last seen */
  constructor(source: Monitor, destination: Monitor, isRunning: boolean) {
    this.#isRunning = isRunning;
    this.#source = source;
    this.#destination = destination;
    this.#streams = [source, destination].map((monitor) => monitor.events(EVENTS));
    for (const stream of this.#streams) void this.#listen(stream, stream === this.#streams[0]);
  }

  [Symbol.dispose](): void {
    for (const stream of this.#streams) stream.close();
  }

  /** The capabilities of both sides that are going to be changed, as they are. */
  async changedCapabilities(): Promise<Record<'source' | 'destination', MigrationCapability[]>> {
    return {
      source: await without(this.#source, WANTED_OF_SOURCE),
      destination: await without(this.#destination, WANTED_OF_DESTINATION),
    };
  }

  async setCapabilities(): Promise<void> {
    const on = (names: readonly string[]) => ({
      capabilities: names.map((capability) => ({ capability, state: true })),
    });
    await this.#destination.execute('migrate-set-capabilities', on(WANTED_OF_DESTINATION));
    await this.#source.execute('migrate-set-capabilities', on(WANTED_OF_SOURCE));
  }

  /** Lets the destination listen, and the source send. */
  async begin(uri: string, signal: AbortSignal): Promise<void> {
    await this.#destination.execute('migrate-incoming', { uri }, { signal });
    const before = await this.#source.execute('query-migrate');
    await this.#source.executeOnce(
      'migrate',
      { uri },
      {
        // What an earlier one has come to is told until another begins.
        isDone: async (monitor) => {
          const { status } = await monitor.execute('query-migrate');
          return status !== before.status;
        },
      },
    );
  }

  /** How far the source is; over a new connection where the old one is lost. */
  async status(reconnectMs?: number): Promise<MigrationInfo> {
    return (await ask(this.#source, 'query-migrate', reconnectMs)) as MigrationInfo;
  }

  /** Whether the machine ran, as was last seen, until QEMU stopped it for the switch: somebody may stop it or let it go on. */
  async isRunning(): Promise<boolean> {
    await this.#looking;
    return this.#isRunning;
  }

  async look(): Promise<void> {
    const heard = this.#changes;
    const { status, running } = (await ask(this.#source, 'query-status')) as RunStatus;
    // What was heard meanwhile is newer than the answer may be, and is looked at by itself.
    if (status !== STOPPED_BY_QEMU && heard === this.#changes) this.#isRunning = running;
  }

  /**
   * The machine has stopped, or goes on. Before memory moves that is somebody's doing, even where QEMU has stopped it for
   * the switch by the time that it is asked; behind that only the state tells who has stopped it.
   */
  #changed(event: 'STOP' | 'RESUME'): void {
    this.#changes++;
    if (event === 'STOP') this.stoppedAt = performance.now();
    if (!this.#hasBegun) this.#isRunning = event === 'RESUME';
    // At once: a round may keep everybody else busy until QEMU has stopped the machine.
    this.#looking = this.look().catch(() => {});
  }

  /** Waits for an event since the last call, or for a while. */
  async heard(): Promise<void> {
    const ended = new AbortController();
    this.#ring = () => ended.abort();
    if (!this.#hasRung) {
      await sleep(LONGEST_PAUSE_MS, undefined, { signal: ended.signal }).catch(() => {});
    }
    this.#hasRung = false;
  }

  /**
   * Lets the source hand over, and waits until it has.
   *
   * @throws LacunaError ERR_MIGRATION_FAILED where it goes on itself; ERR_MIGRATION_UNDECIDED where the destination does not
   *   confirm that it has the machine.
   */
  async handOver(): Promise<void> {
    await this.#checkDestination();
    const isDone = async () => (await this.status()).status !== WAITS;
    const reconnectMs = RECONNECT_MS;
    this.wasTold = true;
    try {
      await this.#source.executeOnce('migrate-continue', { state: WAITS }, { isDone, reconnectMs });
    } catch (error) {
      // Such as that somebody has cancelled it meanwhile.
      if ((error as LacunaError).code === 'ERR_QMP_COMMAND') {
        throwIfEnded(this.#source.name, await this.status());
      }
      throw error;
    }
    for (const end = performance.now() + CONFIRM_MS; ; await this.heard()) {
      const info = await this.status(RECONNECT_MS);
      if (info.status === 'completed') return;
      throwIfEnded(this.#source.name, info);
      if (performance.now() > end) throw unconfirmed(this.#source.name);
    }
  }

  /** A destination that cannot be asked now could not take over either. */
  async #checkDestination(): Promise<void> {
    try {
      await this.#destination.execute('query-status');
    } catch (cause) {
      const { name: device } = this.#destination;
      const message = `${device}: the destination has ended, or does not answer, before the switch: ${(cause as Error).message}`;
      throw new LacunaError('ERR_MIGRATION_FAILED', message, { device, cause, retryable: true });
    }
  }

  async #listen(stream: EventStream, isOfSource: boolean): Promise<void> {
    try {
      for await (const { event } of stream) {
        if (isOfSource && event === 'MIGRATION') this.#hasBegun = true;
        if (isOfSource && event !== 'MIGRATION') this.#changed(event as 'STOP' | 'RESUME');
        if (!isOfSource && event === 'RESUME') this.resumedAt = performance.now();
        this.#hasRung = true;
        this.#ring();
      }
    } catch {
      // The connection was lost: the next question fails, and says so.
    }
  }
}

async function without(monitor: Monitor, names: readonly string[]): Promise<MigrationCapability[]> {
  const all = await monitor.execute('query-migrate-capabilities');
  return all.filter(({ capability, state }) => names.includes(capability) && !state);
}

const HAS_ENDED: ReadonlySet<string> = new Set(['failed', 'cancelling', 'cancelled', 'none']);

/** @throws LacunaError ERR_MIGRATION_FAILED where a migration has ended, or is being cancelled, without handing over */
export function throwIfEnded(device: string, info: MigrationInfo): void {
  const { status = 'none', 'error-desc': description } = info;
  if (!HAS_ENDED.has(status)) return;
  const why = description === undefined ? `it is "${status}"` : description;
  throw new LacunaError('ERR_MIGRATION_FAILED', `${device}: QEMU has ended the migration: ${why}`, {
    device,
    retryable: true,
    ...(description !== undefined && { description }),
  });
}

function unconfirmed(device: string): LacunaError {
  return new LacunaError(
    'ERR_MIGRATION_UNDECIDED',
    `${device}: the source is handing over, and the destination has not confirmed for ${CONFIRM_MS / 1000} s that it has the machine: both stand still. Where the destination goes on, so does the migration: see that the destination runs (query-status), and end the source (quit). Else kill the destination: the source goes on by itself then, with its own disks. Do not cancel this migration (migrate_cancel), and let nothing go on by hand (cont) on the source`,
    { device },
  );
}

/** Asks what changes nothing; over a new connection where the old one is lost. */
export async function ask(
  monitor: Monitor,
  question: string,
  reconnectMs?: number,
): Promise<unknown> {
  for (;;) {
    try {
      return await monitor.execute(question);
    } catch (error) {
      if (!(error instanceof LacunaError) || monitor.isConnected) throw error;
      await monitor.reconnect({ timeoutMs: reconnectMs });
    }
  }
}
