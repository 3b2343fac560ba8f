/** The same jobs, over the same protocol, by `lacuna daemon` and qemu-storage-daemon. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Monitor } from 'lacuna/qmp';
import { cpuMsOf } from './graph/contenders.js';
import { SCENARIOS, type Scenario } from './graph/scenarios.js';
import {
  type BenchOptions,
  type Contender,
  exec,
  runWorkloads,
  type Workload,
} from './support/bench.js';

const LACUNA = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));
const PROGRAMS = [
  { name: '`lacuna daemon`', command: [process.execPath, LACUNA, 'daemon'] },
  { name: 'qemu-storage-daemon', command: ['qemu-storage-daemon'] },
] as const;

export async function benchGraphJobs(options: BenchOptions): Promise<void> {
  const workloads = SCENARIOS.map(
    (scenario): Workload => ({
      name: scenario.name,
      run: async ({ folder, smoke, race }) => {
        const master = join(folder, 'master');
        await mkdir(master);
        await scenario.make(master, smoke);
        const contenders = PROGRAMS.map(({ name, command }) =>
          contenderOf(scenario, { name, command, folder, master }),
        );
        await race(contenders);
      },
    }),
  );
  await runWorkloads(workloads, options);
}

interface Place {
  readonly name: string;
  readonly command: readonly string[];
  readonly folder: string;
  readonly master: string;
}

function contenderOf(scenario: Scenario, { name, command, folder, master }: Place): Contender {
  const work = join(folder, 'work');
  let child: ChildProcess;
  let monitor: Monitor;
  return {
    name,
    prepare: async () => {
      await mkdir(work);
      for (const file of scenario.files) {
        await exec('cp', ['--sparse=always', join(master, file), join(work, file)]);
      }
      ({ child, monitor } = await started(scenario, command, work));
    },
    run: async () => {
      const before = cpuMsOf(child);
      await carryOut(scenario, monitor);
      return cpuMsOf(child) - before;
    },
    verify: async () => {
      await ended(child, monitor);
      const [result, wanted] = scenario.equal;
      await exec('qemu-img', ['compare', join(work, result), join(master, wanted)]);
    },
    storedBytes: async () => (await stat(join(work, scenario.equal[0]))).blocks * 512,
    clear: async () => {
      await ended(child, monitor);
      await rm(work, { recursive: true });
    },
  };
}

async function started({ nodes }: Scenario, [program, ...first]: readonly string[], work: string) {
  const path = join(work, 'qmp');
  const described = nodes.flatMap((node) => [
    '--blockdev',
    JSON.stringify(node).replaceAll('FOLDER', work),
  ]);
  const child = spawn(
    program,
    [
      ...[...first, ...described, '--chardev', `socket,id=m,path=${path},server=on,wait=off`],
      ...['--monitor', 'chardev=m'],
    ],
    { stdio: ['ignore', 'ignore', 'inherit'] },
  );
  for (;;) {
    try {
      return { child, monitor: await Monitor.connect({ path }) };
    } catch (error) {
      if (child.exitCode !== null) throw error;
      await sleep(20);
    }
  }
}

/** Until the job has ended well. */
async function carryOut({ command, isCompleted }: Scenario, monitor: Monitor): Promise<void> {
  const [name, args] = command;
  await monitor.execute(name, { ...args, 'auto-dismiss': false });
  for (let isAsked = false; ; ) {
    const [{ status, error }] = await monitor.execute('query-jobs');
    if (error !== undefined) throw new Error(error);
    if (status === 'concluded') return;
    if (isCompleted && status === 'ready' && !isAsked) {
      await monitor.execute('job-complete', { id: 'job' });
      isAsked = true;
    }
    await sleep(5);
  }
}

async function ended(child: ChildProcess, monitor: Monitor): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  await monitor.execute('job-dismiss', { id: 'job' });
  await monitor.execute('quit').catch(() => {});
  await monitor.close();
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
}
