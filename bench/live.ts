/** Backups of running machines while their guests write: by the command and QEMU's own job, and through libvirt by virtnbdbackup. */
import { mkdtemp, rm } from 'node:fs/promises';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type BackupContender,
  Lacuna,
  LacunaLibvirt,
  QemuJob,
  Virtnbdbackup,
} from './live/contenders.js';
import { BenchDomain } from './live/domain.js';
import { BenchMachine, type LiveMachine } from './live/machine.js';
import { type BenchOptions, exec, median } from './support/bench.js';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const TIB = 2 ** 40;

/** What one backup took. */
interface Row {
  readonly workload: string;
  readonly name: string;
  readonly wallMs: number;
  /** Of processor time. */
  readonly qemuSeconds: number;
  /** Of processor time of the command. */
  readonly ownSeconds: number;
  readonly storedBytes: number;
  /** Milliseconds that writes of the guest took meanwhile. */
  readonly latency: { readonly median: number; readonly p99: number; readonly worst: number };
}

export async function benchLive({ smoke, json, runs }: BenchOptions): Promise<void> {
  const [size, mib, busyMib] = smoke ? [TIB / 64, 8, 4] : [TIB, 1024, 64];
  const work = { runs, data: spread(mib, size), busy: spread(busyMib, size) };
  const folder = await mkdtemp(join(process.env.LACUNA_BENCH_DIR ?? tmpdir(), 'lacuna-bench-'));
  const rows: Row[] = [];
  try {
    const machine = await BenchMachine.start(folder, size);
    const raced = [Lacuna.of(machine, folder), new QemuJob(machine, folder)];
    rows.push(...(await race(machine, raced, { ...work, title: '' })));
    const domain = await BenchDomain.start(folder, size);
    const ofLibvirt = [new LacunaLibvirt(domain, folder), new Virtnbdbackup(domain, folder)];
    rows.push(...(await race(domain, ofLibvirt, { ...work, title: 'libvirt, ' })));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  report(rows, json);
}

function spread(count: number, size: number): number[] {
  return Array.from({ length: count }, (_, i) => Math.floor((i * size) / count / MIB) * MIB);
}

/** What is done with a machine. */
interface Work {
  readonly runs: number;
  /** Where it has data, and where increments are dirty: ranges of 1 MiB. */
  readonly data: readonly number[];
  /** Where its guest writes while it is backed up. */
  readonly busy: readonly number[];
  /** Before the names of the workloads. */
  readonly title: string;
}

/** Has each contender back the machine up in turn, and ends the machine. */
async function race(
  machine: LiveMachine,
  contenders: readonly BackupContender[],
  { runs, data, busy, title }: Work,
): Promise<Row[]> {
  const rows: Row[] = [];
  const size = `${machine.size / GIB} GiB`;
  try {
    await machine.fill(data, 1);
    for (let round = 0; round <= runs; round++) {
      for (const contender of contenders) {
        const bench = new Round(machine, contender, busy);
        // The first round is looked at, while nobody writes; the others count, if there are any.
        const isQuiet = round === 0;
        const full = `${title}full: ${size}, ${data.length} MiB of data`;
        const increment = `${title}increment: ${size}, ${data.length} MiB dirty`;
        const made = [
          await bench.run(full, () => contender.full(), isQuiet),
          await bench.run(increment, () => contender.increment(), isQuiet, {
            prepare: () => machine.fill(data, 2 + round),
          }),
        ];
        if (!isQuiet || runs === 0) rows.push(...made);
        await contender.clear();
      }
    }
    return rows;
  } finally {
    await machine.stop();
  }
}

class Round {
  readonly #machine: LiveMachine;
  readonly #contender: BackupContender;
  readonly #places: readonly number[];

  constructor(machine: LiveMachine, contender: BackupContender, places: readonly number[]) {
    this.#machine = machine;
    this.#contender = contender;
    this.#places = places;
  }

  async run(
    workload: string,
    work: () => Promise<number>,
    isQuiet: boolean,
    { prepare }: { prepare?: () => Promise<void> } = {},
  ): Promise<Row> {
    await prepare?.();
    const before = isQuiet && prepare === undefined ? 0 : this.#stored();
    const guest = isQuiet ? undefined : this.#machine.writing(this.#places);
    const [startSeconds, started] = [this.#machine.processorSeconds(), performance.now()];
    const ownSeconds = await work();
    const wallMs = performance.now() - started;
    const qemuSeconds = this.#machine.processorSeconds() - startSeconds;
    const times = (await guest?.end()) ?? [0];
    if (isQuiet) await this.#verify();
    const row = {
      ...{ workload, name: this.#contender.name, wallMs, qemuSeconds, ownSeconds },
      storedBytes: this.#stored() - before,
      latency: latencyOf(times),
    };
    console.error(
      `${workload}: ${row.name} ${Math.round(wallMs)} ms, load ${loadavg()[0].toFixed(1)}`,
    );
    return row;
  }

  #stored(): number {
    try {
      return this.#contender.storedBytes();
    } catch {
      // There is nothing yet.
      return 0;
    }
  }

  /** Nobody has written meanwhile: the newest image holds what the disk holds. */
  async #verify(): Promise<void> {
    const newest = await this.#contender.newest();
    const [path, ...flags] = (await this.#machine.live()).reverse();
    await exec('qemu-img', ['compare', ...flags.reverse(), '-F', 'qcow2', path, newest]);
  }
}

function latencyOf(times: readonly number[]): Row['latency'] {
  const sorted = [...times].sort((a, b) => a - b);
  const at = (share: number) =>
    sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  return { median: at(0.5), p99: at(0.99), worst: sorted[sorted.length - 1] };
}

/** The medians of what one contender took for one workload. */
function summary(rows: readonly Row[]) {
  const kinds = new Set(rows.map(({ workload, name }) => `${workload}\n${name}`));
  return [...kinds].map((kind) => {
    const same = rows.filter(({ workload, name }) => `${workload}\n${name}` === kind);
    const of = (pick: (row: Row) => number) => Number(median(same.map(pick)).toPrecision(3));
    return {
      workload: same[0].workload,
      name: same[0].name,
      medianMs: of(({ wallMs }) => wallMs),
      qemuCpuSeconds: of(({ qemuSeconds }) => qemuSeconds),
      commandCpuSeconds: of(({ ownSeconds }) => ownSeconds),
      storedMib: of(({ storedBytes }) => storedBytes / MIB),
      guestWriteMs: of(({ latency }) => latency.median),
      guestWriteP99Ms: of(({ latency }) => latency.p99),
      guestWriteWorstMs: of(({ latency }) => latency.worst),
    };
  });
}

function report(rows: readonly Row[], json: boolean): void {
  if (json) console.log(JSON.stringify(summary(rows), null, 2));
  else console.table(summary(rows));
}
