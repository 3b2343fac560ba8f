import { readFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { LacunaError } from '../../errors/index.js';
import type { Graph } from '../../graph/index.js';
import { ownFile } from '../../util/index.js';
import { checkSender, checkToken, HttpError, readObject, send, sendJson } from './http/index.js';
import { readBackupWish, readSteering, steer, type WatchedJobs } from './jobs/index.js';
import type { Metrics } from './metrics/index.js';
import { type EventLog, type Maps, shownJob, type WatchState } from './state/index.js';
import type { Broadcast } from './stream/index.js';

/** What requests are answered from. */
export interface Sources {
  readonly graph: Graph;
  readonly jobs: WatchedJobs;
  readonly token: string;
  readonly log: EventLog;
  readonly maps: Maps;
  readonly metrics: Metrics;
  readonly broadcast: Broadcast;
  look(): WatchState;
}

/** One request, its address read. */
interface Call {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly url: URL;
}

/** Files of the page, which are built beside this one. */
const FILES: Readonly<Record<string, readonly [name: string, type: string]>> = {
  '/': ['index.html', 'text/html; charset=utf-8'],
  '/page.js': ['page.js', 'text/javascript; charset=utf-8'],
  '/page.css': ['page.css', 'text/css; charset=utf-8'],
  '/icon.svg': ['icon.svg', 'image/svg+xml'],
};

const MOST_CELLS = 2048;

/** Answers a request, whatever it is. */
export async function answer(
  sources: Sources,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  // Who is gone is told nothing; the others are served all the same.
  response.on('error', () => {});
  try {
    checkSender(request);
    await route(sources, {
      request,
      response,
      url: new URL(request.url ?? '/', 'http://localhost'),
    });
  } catch (error) {
    if (response.headersSent) response.destroy();
    else sendFailure(response, error);
  }
}

async function route(sources: Sources, call: Call): Promise<void> {
  const { pathname } = call.url;
  const isJob = pathname.startsWith('/jobs/');
  if (pathname === '/jobs' || isJob) {
    checkMethod(call, ['POST']);
    checkToken(call.request, sources.token);
    return isJob ? changeJob(sources, call) : startBackup(sources, call);
  }
  const look = LOOKS[pathname] ?? (FILES[pathname] && sendFile);
  if (look === undefined) throw new HttpError(404, `there is nothing at ${pathname}`);
  checkMethod(call, ['GET', 'HEAD']);
  return look(sources, call);
}

const LOOKS: Readonly<Record<string, (sources: Sources, call: Call) => Promise<void>>> = {
  '/metrics': async ({ metrics }, { response }) => {
    send(response, { type: metrics.contentType, body: await metrics.text() });
  },
  '/state': async (sources, { response }) => {
    sendJson(response, { ...sources.look(), events: sources.log.after(0) });
  },
  '/events': async ({ broadcast }, { request, response }) => {
    checkMethod({ request }, ['GET']);
    broadcast.add(response);
  },
  '/map': async ({ maps }, { response, url: { searchParams } }) => {
    const node = searchParams.get('node');
    if (node === null) throw new HttpError(400, 'say of which node: /map?node=NAME');
    const cells = Number(searchParams.get('cells') ?? 512);
    if (!(Number.isInteger(cells) && cells >= 1 && cells <= MOST_CELLS)) {
      throw new HttpError(400, `cells must be 1 to ${MOST_CELLS}`);
    }
    const bitmap = searchParams.get('bitmap');
    const wish = { node, cells, ...(bitmap !== null && { bitmap }) };
    sendJson(response, await maps.get(wish).catch(whyNoMap));
  },
};

/** A node may have gone, or be in use, a moment after a page was told of it: that is an answer like another. */
function whyNoMap(error: unknown): { error: { code: string; message: string } } {
  if (!(error instanceof LacunaError)) throw error;
  const { code, message } = error;
  return { error: { code, message } };
}

async function sendFile(_sources: Sources, { response, url }: Call): Promise<void> {
  const [name, type] = FILES[url.pathname];
  send(response, { type, body: await readFile(ownFile(`daemon/watch/page/${name}`)) });
}

async function startBackup({ jobs }: Sources, { request, response }: Call): Promise<void> {
  const job = await jobs.startBackup(readBackupWish(await readObject(request)));
  sendJson(response, shownJob(job), { status: 201 });
}

async function changeJob({ jobs, log }: Sources, { request, response, url }: Call): Promise<void> {
  const id = decoded(url.pathname.slice('/jobs/'.length));
  const steering = readSteering(await readObject(request));
  const found = jobs.list().find((one) => one.id === id);
  if (found === undefined) throw new HttpError(404, `there is no job ${id}`);
  steer(jobs, found, steering, (error) => {
    log.add('job', `${id} could not ${steering.action}: ${messageOf(error)}`, true);
  });
  sendJson(response, shownJob(found));
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new HttpError(400, 'the address has a % that stands for nothing');
  }
}

function checkMethod({ request }: Pick<Call, 'request'>, allowed: readonly string[]): void {
  if (allowed.includes(request.method ?? '')) return;
  const allow = allowed.join(', ');
  throw new HttpError(405, `this takes ${allow} alone`, { allow });
}

/** Misuse and the world are the client's to read about; what else goes wrong, too. */
function sendFailure(response: ServerResponse, error: unknown): void {
  const { status, headers } =
    error instanceof HttpError ? error : { status: statusOf(error), headers: {} };
  const code = error instanceof LacunaError ? { code: error.code } : {};
  sendJson(response, { error: { ...code, message: messageOf(error) } }, { status, headers });
}

function statusOf(error: unknown): number {
  if (error instanceof TypeError || error instanceof RangeError) return 400;
  if (!(error instanceof LacunaError)) return 500;
  return error.code === 'ERR_GRAPH_UNKNOWN' || error.code === 'ERR_BITMAP_UNKNOWN' ? 404 : 409;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
