import type { Graph } from '../../../graph/index.js';
import type { WatchedJobs } from '../jobs/index.js';
import type { Meters, SeriesTable } from '../meters/index.js';
import { countedHistogram } from './histogram.js';
import type { Prometheus } from './load-client.js';

/** What metrics are made of. */
export interface MetricSources {
  readonly graph: Graph;
  readonly jobs: WatchedJobs;
  readonly meters: Meters;
}

type Labels = Record<string, string>;
type Sample = readonly [labels: Labels, value: number];
type Registry = InstanceType<Prometheus['Registry']>;

const JOB_LABELS = ['job', 'type'];
const STATES = ['running', 'paused', 'waiting', 'pending', 'done', 'failed', 'stopped'];

/** The metrics of a graph, as text for Prometheus; docs/watch.md has the list. */
export class Metrics {
  readonly #prometheus: Prometheus;
  readonly #registry: Registry;

  constructor(prometheus: Prometheus, { graph, jobs, meters }: MetricSources) {
    this.#prometheus = prometheus;
    this.#registry = new prometheus.Registry();
    this.#addRequests('device', 'node', meters.nodes);
    this.#addRequests('nbd', 'export', meters.exports);
    this.#addGraph(graph, meters);
    this.#addJobs(jobs);
    this.#addProcess(meters);
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  text(): Promise<string> {
    return this.#registry.metrics();
  }

  #addRequests(what: string, place: string, table: SeriesTable): void {
    const labels = [place, 'operation'];
    const each = (field: 'bytes' | 'errors') => () =>
      [...table.places].flatMap(([key, operations]) =>
        [...operations].map(
          ([operation, series]): Sample => [{ [place]: key, operation }, series[field]],
        ),
      );
    const at = what === 'device' ? 'a node' : 'an export';
    const prefix = `lacuna_${what}`;
    this.#counter(
      `${prefix}_bytes_total`,
      `Bytes of the requests at ${at} that have not failed.`,
      labels,
      each('bytes'),
    );
    this.#counter(
      `${prefix}_errors_total`,
      `Requests at ${at} that have failed.`,
      labels,
      each('errors'),
    );
    const help = `Seconds that requests at ${at} took; the count is that of the requests.`;
    const names = { name: `${prefix}_request_seconds`, help, place };
    this.#registry.registerMetric(countedHistogram(names, table));
  }

  #addGraph(graph: Graph, { clients }: Meters): void {
    this.#gauge('lacuna_node_size_bytes', 'Size of a node.', ['node', 'driver'], () =>
      graph.nodes.map(({ name, driverName, size }) => [{ node: name, driver: driverName }, size]),
    );
    this.#gauge('lacuna_bitmap_dirty_bytes', 'Dirty bytes of a bitmap.', ['node', 'bitmap'], () =>
      graph.nodes.flatMap((node) =>
        node.bitmaps.flatMap(({ name, dirtyBytes }): Sample[] =>
          dirtyBytes === null ? [] : [[{ node: node.name, bitmap: name }, dirtyBytes]],
        ),
      ),
    );
    this.#gauge('lacuna_nbd_clients', 'Clients of an export.', ['export'], () => {
      const counts = new Map<string, number>();
      for (const one of clients.all) counts.set(one.export, (counts.get(one.export) ?? 0) + 1);
      return [...counts].map(([name, count]): Sample => [{ export: name }, count]);
    });
  }

  #addJobs(jobs: WatchedJobs): void {
    const each =
      (value: (progress: ReturnType<WatchedJobs['list']>[number]['job']) => number) => () =>
        jobs.list().map(({ id, type, job }): Sample => [{ job: id, type }, value(job)]);
    this.#gauge(
      'lacuna_job_total_bytes',
      'Bytes that a job has to do; 0 until that is known.',
      JOB_LABELS,
      each((job) => job.progress().totalBytes),
    );
    this.#gauge(
      'lacuna_job_done_bytes',
      'Bytes that a job has done.',
      JOB_LABELS,
      each((job) => job.progress().doneBytes),
    );
    this.#gauge(
      'lacuna_job_bytes_per_second',
      'Bytes per second that a job has done of late.',
      JOB_LABELS,
      each((job) => job.progress().bytesPerSecond),
    );
    this.#gauge(
      'lacuna_job_ready',
      '1 where a job may be told to complete.',
      JOB_LABELS,
      each((job) => Number(job.isReady)),
    );
    this.#gauge(
      'lacuna_job_state',
      '1 for the state that a job is in.',
      [...JOB_LABELS, 'state'],
      () =>
        jobs
          .list()
          .flatMap(({ id, type, job }) =>
            STATES.map((state): Sample => [{ job: id, type, state }, Number(job.state === state)]),
          ),
    );
  }

  #addProcess(meters: Meters): void {
    const memory = (value: (usage: NodeJS.MemoryUsage) => number) => (): Sample[] => [
      [{}, value(process.memoryUsage())],
    ];
    this.#gauge(
      'process_resident_memory_bytes',
      'Memory of the process.',
      [],
      memory(({ rss }) => rss),
    );
    this.#gauge(
      'nodejs_heap_size_used_bytes',
      'Memory of JavaScript objects.',
      [],
      memory(({ heapUsed }) => heapUsed),
    );
    this.#gauge(
      'nodejs_external_memory_bytes',
      'Memory of buffers and of the engine.',
      [],
      memory(({ external }) => external),
    );
    this.#counter('process_cpu_seconds_total', 'Processor time of the process.', [], () => {
      const { user, system } = process.cpuUsage();
      return [[{}, (user + system) / 1e6]];
    });
    const percentiles = [50, 90, 99, 100];
    const help = 'How late timers were since the last look.';
    this.#gauge('nodejs_eventloop_delay_seconds', help, ['quantile'], () =>
      meters
        .takeDelays(percentiles)
        .map((seconds, i): Sample => [{ quantile: String(percentiles[i] / 100) }, seconds]),
    );
  }

  #gauge(name: string, help: string, labelNames: string[], samples: () => readonly Sample[]): void {
    new this.#prometheus.Gauge({
      ...{ name, help, labelNames, registers: [this.#registry] },
      collect() {
        this.reset();
        for (const [labels, value] of samples()) this.set(labels, value);
      },
    });
  }

  #counter(
    name: string,
    help: string,
    labelNames: string[],
    samples: () => readonly Sample[],
  ): void {
    new this.#prometheus.Counter({
      ...{ name, help, labelNames, registers: [this.#registry] },
      collect() {
        this.reset();
        for (const [labels, value] of samples()) this.inc(labels, value);
      },
    });
  }
}
