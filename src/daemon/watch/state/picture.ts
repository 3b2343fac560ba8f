import type { Graph, GraphPicture } from '../../../graph/index.js';
import { hasEnded, type WatchedJob, type WatchedJobs } from '../jobs/index.js';
import type { Meters } from '../meters/index.js';

/** What pages are shown, as JSON: docs/watch.md describes it for programs. */
export interface WatchState {
  readonly graph: GraphPicture;
  readonly jobs: readonly ShownJob[];
  readonly exports: readonly ShownExport[];
  readonly traffic: Readonly<Record<string, ShownTraffic>>;
  readonly memoryBytes: number;
}

export interface ShownJob {
  readonly id: string;
  readonly type: string;
  readonly nodes: readonly string[];
  readonly state: string;
  readonly isReady: boolean;
  readonly totalBytes: number;
  readonly doneBytes: number;
  readonly bytesPerSecond: number;
  readonly remainingMs?: number;
  readonly elapsedMs: number;
  readonly error?: string;
  /** How writes get to the target of a mirror. */
  readonly copyMode?: string;
  /** What can be done with it now. */
  readonly verbs: readonly JobVerb[];
}

/** What can be done with a job. */
export type JobVerb =
  | 'pause'
  | 'resume'
  | 'complete'
  | 'cancel'
  | 'finalize'
  | 'stop'
  | 'change'
  | 'dismiss';

export interface ShownExport {
  readonly name: string;
  readonly node: string;
  readonly writable: boolean;
  readonly clients: readonly { client: number; address?: string; since: number }[];
}

/** What has passed at a node since it was seen first. */
export interface ShownTraffic {
  readonly readBytes: number;
  readonly writtenBytes: number;
  readonly requests: number;
  readonly errors: number;
}

/** What there is now. */
export function stateOf(graph: Graph, jobs: WatchedJobs, meters: Meters): WatchState {
  return {
    graph: graph.toJSON(),
    jobs: jobs.list().map(shownJob),
    exports: shownExports(graph, meters),
    traffic: trafficOf(meters),
    memoryBytes: process.memoryUsage.rss(),
  };
}

export function shownJob({ id, type, nodes = [], job }: WatchedJob): ShownJob {
  const { error, remainingMs, ...progress } = job.progress();
  const { copyMode } = progress as { copyMode?: string };
  return {
    ...{ id, type, nodes, isReady: job.isReady },
    state: progress.state,
    totalBytes: progress.totalBytes,
    doneBytes: progress.doneBytes,
    bytesPerSecond: progress.bytesPerSecond,
    elapsedMs: progress.elapsedMs,
    ...(remainingMs !== undefined && { remainingMs }),
    ...(error !== undefined && { error: error.message }),
    ...(copyMode !== undefined && { copyMode }),
    verbs: verbsOf(job),
  };
}

/** What can be done with a job now. */
function verbsOf(job: WatchedJob['job']): JobVerb[] {
  const { state, isReady } = job;
  if (hasEnded(job)) return ['dismiss'];
  if (state === 'waiting') return ['stop'];
  if (state === 'pending') return [...(job.finalize ? (['finalize'] as const) : []), 'stop'];
  return [
    state === 'running' ? 'pause' : 'resume',
    ...(job.change === undefined ? [] : (['change'] as const)),
    ...(job.complete !== undefined && isReady ? (['complete'] as const) : []),
    ...(job.cancel !== undefined && isReady ? (['cancel'] as const) : []),
    'stop',
  ];
}

function shownExports(graph: Graph, { clients }: Meters): ShownExport[] {
  const all = clients.all;
  return graph.users
    .filter(({ what }) => what === 'export')
    .map((root) => ({
      name: root.name,
      node: root.node.name,
      writable: root.capabilities.write,
      clients: all
        .filter(({ device }) => device === root)
        .map(({ client, since, address }) => ({
          ...{ client, since },
          ...(address !== undefined && { address }),
        })),
    }));
}

function trafficOf({ nodes }: Meters): Record<string, ShownTraffic> {
  const traffic: Record<string, ShownTraffic> = {};
  for (const [node, operations] of nodes.places) {
    let requests = 0;
    let errors = 0;
    for (const series of operations.values()) {
      requests += series.requests;
      errors += series.errors;
    }
    const readBytes = operations.get('read')?.bytes ?? 0;
    const writtenBytes =
      (operations.get('write')?.bytes ?? 0) + (operations.get('zero')?.bytes ?? 0);
    traffic[node] = { readBytes, writtenBytes, requests, errors };
  }
  return traffic;
}
