import { randomBytes } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import type { Graph } from '../../graph/index.js';
import type { JobMessage } from '../../job/index.js';
import type { NbdClientMessage } from '../../nbd/index.js';
import { optionCheck } from '../../util/index.js';
import { listenAt, parseWatchAddress, urlOf, type WatchAddress } from './http/index.js';
import type { WatchedJobs } from './jobs/index.js';
import { Meters } from './meters/index.js';
import { loadPrometheus, Metrics } from './metrics/index.js';
import { answer } from './routes.js';
import { EventLog, graphChanges, Maps, stateOf, type WatchState } from './state/index.js';
import { Broadcast } from './stream/index.js';

/** What is watched, and where that can be seen. */
export interface WatchOptions {
  readonly graph: Graph;
  /** `127.0.0.1:PORT`, `[::1]:PORT`, `localhost:PORT`, with 0 for a port that is free, or `unix:PATH`. */
  readonly listen: string;
  /** What those must bring who change something: 16 characters or more. Default: one that nobody can guess. */
  readonly token?: string;
  /** The jobs that are shown, and how one more is begun. */
  readonly jobs: WatchedJobs;
}

const checkOptions = optionCheck<WatchOptions>({
  graph: { needed: 'the graph that is watched' },
  listen: { needed: '127.0.0.1:PORT or unix:PATH' },
  token: 'any',
  jobs: { needed: 'the jobs that are shown' },
});

const LEAST_TOKEN = 16;
/** Connections at a time: pages, their streams, and those who take metrics. */
const MOST_CONNECTIONS = 128;
const MOST_HEADER_BYTES = 8 * 1024;
const HEADERS_MS = 5_000;
const REQUEST_MS = 10_000;
/** Names that are gone are forgotten so often. */
const SWEEP_MS = 5_000;

/** A page and metrics that are served. */
export class Watch implements AsyncDisposable {
  /** Where it listens, with the port that the system has chosen. */
  readonly address: WatchAddress;
  /** What those must bring who change something. */
  readonly token: string;
  readonly #server: Server;
  readonly #log: EventLog;
  readonly #end: () => void;

  /** @internal */
  constructor(
    address: WatchAddress,
    token: string,
    server: Server,
    log: EventLog,
    end: () => void,
  ) {
    this.address = address;
    this.token = token;
    this.#server = server;
    this.#log = log;
    this.#end = end;
  }

  /** Where a browser finds the page, with the token; undefined for a Unix socket. */
  get url(): string | undefined {
    const url = urlOf(this.address);
    // What is behind # a browser sends to nobody.
    return url && `${url}#token=${encodeURIComponent(this.token)}`;
  }

  /** Shows an event of the program beside those of the graph. */
  note(text: string, isBad = false): void {
    this.#log.add('monitor', text, isBad);
  }

  /** Ends all connections. Closing again is harmless. */
  async close(): Promise<void> {
    this.#end();
    if (!this.#server.listening) return;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Serves a page that shows a graph live, and metrics for Prometheus, to this machine alone; see docs/watch.md.
 *
 * @throws TypeError or RangeError for options that make no sense. LacunaError ERR_PACKAGE_MISSING where the package prom-client is
 * not installed; ERR_DEVICE_OPEN where the address cannot be listened on.
 */
export async function startWatch(options: WatchOptions): Promise<Watch> {
  checkOptions('startWatch', options);
  const { graph, listen, jobs } = options;
  const address = parseWatchAddress(listen);
  const token = checkedToken(options.token);
  const prometheus = await loadPrometheus();
  const log = new EventLog();
  const meters = new Meters(tellers(log, jobs));
  const sweeper = setInterval(() => forget(graph, meters), SWEEP_MS);
  sweeper.unref();
  const look = looker(graph, jobs, meters, log);
  const broadcast = new Broadcast(log, look);
  const metrics = new Metrics(prometheus, { graph, jobs, meters });
  const sources = { graph, jobs, token, log, broadcast, metrics, maps: new Maps(graph), look };
  const server = makeServer((request, response) => void answer(sources, request, response));
  const end = () => {
    clearInterval(sweeper);
    broadcast.close();
    meters.close();
  };
  try {
    return new Watch(await listenAt(server, address), token, server, log, end);
  } catch (error) {
    end();
    throw error;
  }
}

function makeServer(listener: Parameters<typeof createServer>[1]): Server {
  const server = createServer(
    {
      maxHeaderSize: MOST_HEADER_BYTES,
      headersTimeout: HEADERS_MS,
      requestTimeout: REQUEST_MS,
      connectionsCheckingInterval: HEADERS_MS,
    },
    listener,
  );
  server.maxConnections = MOST_CONNECTIONS;
  // What accept() itself reports, such as too many open files: the next client may fare better.
  server.on('error', () => {});
  return server;
}

function checkedToken(token: string | undefined): string {
  if (token === undefined) return randomBytes(24).toString('base64url');
  if (typeof token === 'string' && /^[\x21-\x7e]+$/.test(token) && token.length >= LEAST_TOKEN) {
    return token;
  }
  throw new RangeError(`the token must have ${LEAST_TOKEN} characters or more, without spaces`);
}

/** Looks at everything, and notes how the graph has changed since the last look. */
function looker(graph: Graph, jobs: WatchedJobs, meters: Meters, log: EventLog): () => WatchState {
  let before = graph.toJSON();
  return () => {
    const state = stateOf(graph, jobs, meters);
    for (const text of graphChanges(before, state.graph)) log.add('graph', text);
    before = state.graph;
    return state;
  };
}

function tellers(log: EventLog, jobs: WatchedJobs) {
  return {
    client: ({ client, event, export: name, address }: NbdClientMessage) => {
      const from = address === undefined ? '' : ` from ${address}`;
      const what = event === 'entered' ? 'came to' : 'left';
      log.add('client', `client ${client}${from} ${what} the export ${name}`);
    },
    job: ({ job, event, error }: JobMessage) => {
      // Parts of other jobs have no name.
      const id = jobs.list().find((one) => one.job === job)?.id;
      if (id === undefined) return;
      const why = error instanceof Error ? `: ${error.message}` : '';
      const has = { begun: 'has begun', ready: 'is ready', resumed: 'goes on' } as const;
      const text = has[event as keyof typeof has] ?? `is ${event}`;
      log.add('job', `${id} ${text}${why}`, event === 'failed' || error !== undefined);
    },
  };
}

/** Forgets the counts of what is not there any more. */
function forget(graph: Graph, { nodes, exports, clients }: Meters): void {
  const there = new Set(graph.nodes.map(({ name }) => name));
  nodes.keep((name) => there.has(name));
  const users: readonly unknown[] = graph.users;
  const served = clients.keep((device) => users.includes(device));
  exports.keep((name) => served.has(name));
}
