import { once } from 'node:events';
import { existsSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { startWatch, type Watch, type WatchOptions } from '#dist/daemon/watch/index.js';
import { loadPrometheus } from '#dist/daemon/watch/metrics/index.js';
import { Viewer } from '#dist/daemon/watch/stream/index.js';
import { Graph } from '#dist/graph/index.js';
import { NbdClient, NbdServer } from '#dist/nbd/index.js';
import { type Answered, askHttp } from '../../support/ask-http.js';
import { fakeDevice } from '../../support/fake-device.js';
import { GraphJobs } from '../../support/graph-jobs.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

/** Several pieces of a job, which keeps to a rate between them. */
const SIZE = 1 << 23;
const folder = temporaryFolder();
let graph: Graph;
let watch: Watch;

async function begin(options: Partial<WatchOptions> = {}): Promise<void> {
  watch = await startWatch({
    graph,
    listen: '127.0.0.1:0',
    jobs: new GraphJobs(graph, [folder]),
    ...options,
  });
}

const noJobs = () => new GraphJobs(graph, []);

beforeEach(async () => {
  graph = new Graph();
  await graph.add({ 'node-name': 'disk', driver: 'memory', size: SIZE } as never, {
    writable: true,
  });
});

afterEach(async () => {
  await watch?.close();
  await graph.close();
});

const ask = (path: string, question?: Parameters<typeof askHttp>[2]) =>
  askHttp(watch.address, path, question);

/** Changes something, with the token. */
const post = (path: string, body: unknown, headers = {}): Promise<Answered> =>
  ask(path, {
    method: 'POST',
    body,
    headers: { authorization: `Bearer ${watch.token}`, ...headers },
  });

describe('startWatch', () => {
  it.each([
    ['0.0.0.0:8080', RangeError],
    ['192.168.0.1:8080', RangeError],
    ['[::]:8080', RangeError],
    ['example.org:8080', RangeError],
    ['8080', TypeError],
    ['127.0.0.1:99999', TypeError],
    ['unix:', TypeError],
  ])('does not listen on %s', async (listen, kind) => {
    await expect(startWatch({ graph, listen, jobs: noJobs() })).rejects.toThrow(kind);
  });

  it('refuses a token that can be guessed', async () => {
    await expect(
      startWatch({ graph, listen: '127.0.0.1:0', jobs: noJobs(), token: 'secret' }),
    ).rejects.toThrow(/16 characters/);
  });

  it('says who has the port already', async () => {
    await begin();
    const { port } = watch.address as { port: number };
    const again = startWatch({ graph, listen: `127.0.0.1:${port}`, jobs: noJobs() });
    await expect(again).rejects.toMatchObject({ code: 'ERR_DEVICE_OPEN', errno: 'EADDRINUSE' });
  });

  it('makes a Unix socket for its owner alone, and answers there', async () => {
    const path = join(folder, 'watch.sock');
    await begin({ listen: `unix:${path}` });
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect((await ask('/state')).status).toBe(200);
  });

  it('makes a token for every start, and tells it where a browser does not pass it on', async () => {
    await begin();
    const { token, url } = watch;
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/#token=/);
    await watch.close();
    await begin();
    expect(watch.token).not.toBe(token);
  });
});

describe('a request', () => {
  beforeEach(() => begin());

  it.each(['localhost', '127.0.0.1:1234', '[::1]:99', 'LOCALHOST:80'])(
    'for the host %s is answered',
    async (host) => {
      expect((await ask('/state', { headers: { host } })).status).toBe(200);
    },
  );

  it.each([
    'example.org',
    'localhost.example.org',
    '127.0.0.1.example.org',
    '192.168.0.1',
    'localhost:80:80',
  ])('for the host %s is refused, since a name of others may lead here', async (host) => {
    const answer = await ask('/state', { headers: { host } });
    expect(answer.status).toBe(403);
    expect(answer.text).not.toContain('disk');
  });

  it.each([
    { origin: 'http://example.org' },
    { origin: 'http://localhost:3000' },
    { origin: 'null' },
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-site' },
  ])('of a page of another site is refused, even with the token: %j', async (headers) => {
    const body = { node: 'disk', target: join(folder, 'stolen.qcow2') };
    expect((await post('/jobs', body, headers)).status).toBe(403);
    expect((await ask('/state', { headers: headers as never })).status).toBe(403);
  });

  it('of who follows a link of another site is answered, and no script of that site', async () => {
    const from = { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate' };
    const link = { ...from, 'sec-fetch-dest': 'document' };
    expect((await ask('/state', { headers: link })).status).toBe(200);
    expect((await ask('/state', { headers: { ...from, 'sec-fetch-dest': 'iframe' } })).status).toBe(
      403,
    );
    expect((await post('/jobs', {}, link)).status).toBe(403);
  });

  it('of its own page is answered', async () => {
    const headers = {
      host: 'localhost:80',
      origin: 'http://localhost:80',
      'sec-fetch-site': 'same-origin',
    };
    expect((await ask('/state', { headers })).status).toBe(200);
  });

  it.each([{}, { authorization: 'Bearer wrong' }, { authorization: 'Basic eDp5' }])(
    'that changes something is refused without the token: %j',
    async (headers) => {
      const target = join(folder, 'without.qcow2');
      const answer = await ask('/jobs', {
        method: 'POST',
        body: { node: 'disk', target },
        headers: headers as never,
      });
      expect(answer.status).toBe(401);
      expect(existsSync(target)).toBe(false);
    },
  );

  it('gets a policy by which a page loads nothing from elsewhere', async () => {
    const { headers } = await ask('/state');
    expect(headers['content-security-policy']).toMatch(/^default-src 'none'/);
    expect(headers['content-security-policy']).not.toMatch(/unsafe|https?:|\*/);
    expect(headers).toMatchObject({
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'no-referrer',
      'cross-origin-resource-policy': 'same-origin',
      'cache-control': 'no-store',
    });
  });

  it.each([
    ['GET', '/nothing', 404],
    ['GET', '/../package.json', 404],
    ['GET', '/constructor', 404],
    ['GET', '/__proto__', 404],
    ['POST', '/state', 405],
    ['DELETE', '/metrics', 405],
    ['GET', '/map', 400],
    ['GET', '/map?node=disk&cells=1e9', 400],
  ])('%s %s is answered with %i', async (method, path, status) => {
    const answer = await ask(path, { method });
    expect(answer.status).toBe(status);
    expect(answer.json()).toHaveProperty('error.message');
  });

  it.each([
    ['no JSON', '{', {}, 400],
    ['a list', [], {}, 400],
    ['another type', '{}', { 'content-type': 'text/plain' }, 415],
    ['a body without end', 'x'.repeat(20_000), {}, 413],
    ['a body that goes on and on', 'x'.repeat(4_000_000), {}, 413],
    ['an unknown key', { node: 'disk', target: '/x', compress: true }, {}, 400],
    ['an unknown format', { node: 'disk', target: '/x', format: 'vmdk' }, {}, 400],
    ['an unknown node', { node: 'nobody', target: '/x' }, {}, 404],
    ['a rate of 0', { node: 'disk', target: '/x', rate: 0 }, {}, 400],
  ])('to begin a backup is refused with %s', async (_what, body, headers, status) => {
    expect((await post('/jobs', body, headers)).status).toBe(status);
  });
});

describe('a backup', () => {
  beforeEach(async () => {
    const disk = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
    await disk.write(0, new Uint8Array(SIZE).fill(1));
    await begin();
  });

  it('is begun, paused, resumed and watched to its end', async () => {
    const target = join(folder, 'backup.qcow2');
    const begun = await post('/jobs', { node: 'disk', target, rate: 4096 });
    expect(begun.json()).toMatchObject({
      id: 'backup-1',
      type: 'backup',
      nodes: ['disk'],
      state: 'running',
    });
    expect(begun.status).toBe(201);
    const paused = await post('/jobs/backup-1', { action: 'pause' });
    expect(paused.json()).toMatchObject({ state: 'paused', verbs: ['resume', 'stop'] });
    const resumed = await post('/jobs/backup-1', { action: 'resume' });
    expect(resumed.json()).toMatchObject({ state: 'running', verbs: ['pause', 'stop'] });
    await post('/jobs/backup-1', { action: 'stop' });
    const job = async () => ((await ask('/state')).json().jobs as { state: string }[])[0];
    await expect.poll(async () => (await job()).state).toBe('stopped');
    expect(await job()).toMatchObject({ verbs: ['dismiss'] });
    const events = (await ask('/state')).json().events as { text: string }[];
    const texts = events.map(({ text }) => text).filter((text) => text.startsWith('backup-1'));
    expect(texts.map((text) => text.split(':')[0])).toEqual([
      'backup-1 has begun',
      'backup-1 is paused',
      'backup-1 goes on',
      'backup-1 is stopped',
    ]);
    expect((await post('/jobs/backup-1', { action: 'dismiss' })).status).toBe(200);
    expect(await job()).toBeUndefined();
  });

  it.each(['complete', 'cancel'])(
    'cannot be told to %s, since it ends by itself',
    async (action) => {
      await post('/jobs', { node: 'disk', target: join(folder, `${action}.qcow2`), rate: 4096 });
      const answer = await post('/jobs/backup-1', { action });
      expect(answer.status).toBe(400);
      expect(answer.text).toMatch(/ends by itself/);
    },
  );

  it('is dismissed only when it has ended', async () => {
    await post('/jobs', { node: 'disk', target: join(folder, 'kept.qcow2'), rate: 4096 });
    expect((await post('/jobs/backup-1', { action: 'dismiss' })).status).toBe(400);
  });

  it('replaces no file', async () => {
    const target = join(folder, 'there.qcow2');
    await post('/jobs', { node: 'disk', target, rate: 4096 });
    const again = await post('/jobs', { node: 'disk', target });
    expect(again.status).toBe(409);
  });

  it('that is not there cannot be steered', async () => {
    expect((await post('/jobs/backup-9', { action: 'pause' })).status).toBe(404);
    expect((await post('/jobs/%', { action: 'pause' })).status).toBe(400);
    expect((await post('/jobs/backup-9', { action: 'explode' })).status).toBe(400);
  });
});

describe('a mirror', () => {
  it('is switched, and completed when it is ready', async () => {
    await graph.add({ 'node-name': 'copy', driver: 'memory', size: SIZE } as never, {
      writable: true,
    });
    await graph.addExport({ name: 'guest', node: 'disk', writable: true });
    const job = graph.mirror({ node: 'disk', target: 'copy' });
    const jobs = noJobs();
    const { id } = jobs.add('mirror', ['disk'], job);
    await begin({ jobs });
    await expect.poll(() => job.isReady).toBe(true);
    const changed = await post(`/jobs/${id}`, { action: 'change', copyMode: 'write-blocking' });
    expect(changed.json()).toMatchObject({ copyMode: 'write-blocking', isReady: true });
    expect(changed.json().verbs).toEqual(['pause', 'change', 'complete', 'cancel', 'stop']);
    await post(`/jobs/${id}`, { action: 'complete' });
    expect(await job).toMatchObject({ completed: true, target: 'copy' });
  });
});

describe('/map', () => {
  it('tells data, holes and dirt of each part of a disk', async () => {
    const disk = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
    await graph.changeBitmaps({ disk: [{ type: 'add', name: 'b0', granularity: 65536 } as never] });
    await disk.write(SIZE / 2, new Uint8Array(SIZE / 4).fill(1));
    await begin();
    const map = (await ask('/map?node=disk&bitmap=b0&cells=4')).json();
    expect(map).toMatchObject({
      node: 'disk',
      size: SIZE,
      cellBytes: SIZE / 4,
      isWhole: true,
      bitmap: 'b0',
    });
    expect(map.dirty).toEqual([0, 0, SIZE / 4, 0]);
    const { data, zero, hole } = map as Record<string, number[]>;
    expect(data.map((bytes, i) => bytes + zero[i] + hole[i])).toEqual(Array(4).fill(SIZE / 4));
    expect(data[2]).toBe(SIZE / 4);
  });

  it('is asked between two changes, so that nothing that is removed is in use', async () => {
    await graph.add({ 'node-name': 'other', driver: 'null', size: SIZE });
    await begin();
    const asked = Array.from({ length: 4 }, (_, i) => ask(`/map?node=other&cells=${i + 1}`));
    await graph.remove('other');
    for (const answer of await Promise.all(asked)) expect(answer.status).toBe(200);
    expect(graph.nodes.map(({ name }) => name)).toEqual(['disk']);
  });

  it.each([
    ['/map?node=nobody', 'ERR_GRAPH_UNKNOWN'],
    ['/map?node=disk&bitmap=none', 'ERR_BITMAP_UNKNOWN'],
  ])('says why there is none: %s', async (path, code) => {
    await begin();
    const answer = await ask(path);
    expect(answer.status).toBe(200);
    expect(answer.json()).toMatchObject({ error: { code, message: expect.any(String) } });
  });
});

describe('/metrics', () => {
  it('tells requests, bytes and durations by node and by export, jobs, bitmaps and memory', async () => {
    await graph.changeBitmaps({ disk: [{ type: 'add', name: 'b0', granularity: 65536 } as never] });
    const device = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
    await begin();
    await using server = new NbdServer({ exports: [{ name: 'guest', device }] });
    const address = await server.listen({ type: 'unix', path: join(folder, 'metrics.sock') });
    const client = await NbdClient.connect({ server: address, export: 'guest' });
    await client.write(0, new Uint8Array(4096));
    await client.write(4096, new Uint8Array(4096));
    await post('/jobs', { node: 'disk', target: join(folder, 'm.raw'), format: 'raw', rate: 4096 });
    const { text, headers } = await ask('/metrics');
    expect(headers['content-type']).toMatch(/^text\/plain; version=0\.0\.4/);
    const lines = text.split('\n');
    const of = (name: string) =>
      Number(
        lines
          .find((line) => line.startsWith(name))
          ?.split(' ')
          .at(-1),
      );
    expect(of('lacuna_nbd_bytes_total{export="guest",operation="write"}')).toBe(8192);
    expect(of('lacuna_nbd_request_seconds_count{export="guest",operation="write"}')).toBe(2);
    expect(
      of('lacuna_nbd_request_seconds_bucket{export="guest",operation="write",le="+Inf"}'),
    ).toBe(2);
    expect(of('lacuna_device_bytes_total{node="disk",operation="write"}')).toBe(8192);
    expect(of('lacuna_nbd_clients{export="guest"}')).toBe(1);
    expect(of('lacuna_bitmap_dirty_bytes{node="disk",bitmap="b0"}')).toBe(65536);
    const states = ['running', 'paused', 'done', 'failed', 'stopped'].map((state) =>
      of(`lacuna_job_state{job="backup-1",type="backup",state="${state}"}`),
    );
    expect(states.sort()).toEqual([0, 0, 0, 0, 1]);
    expect(of('process_resident_memory_bytes')).toBeGreaterThan(1e6);
    expect(
      lines.some((line) => line.startsWith('nodejs_eventloop_delay_seconds{quantile="0.99"}')),
    ).toBe(true);
    await client.close();
  });

  it('counts a request that has failed as an error', async () => {
    const bad = fakeDevice(SIZE, { read: () => Promise.reject(new Error('broken')) });
    await graph.addDevice('bad', bad);
    const device = await graph.addExport({ name: 'guest', node: 'bad' });
    await begin();
    await expect(device.read(0, new Uint8Array(512))).rejects.toThrow('broken');
    const { text } = await ask('/metrics');
    expect(text).toContain('lacuna_device_errors_total{node="bad",operation="read"} 1');
    expect(text).toContain('lacuna_device_bytes_total{node="bad",operation="read"} 0');
  });

  it('need a package that only some install, and say so where it is missing', async () => {
    const missing = () => Promise.reject(new Error('Cannot find package'));
    await expect(loadPrometheus(missing)).rejects.toMatchObject({
      code: 'ERR_PACKAGE_MISSING',
      message: expect.stringContaining('npm install prom-client'),
    });
  });
});

describe('/events', () => {
  it('tells all there is at once, then what has changed, and of very many events the last', async () => {
    await begin();
    const stream = await fetch(
      `http://127.0.0.1:${(watch.address as { port: number }).port}/events`,
    );
    const reader = stream.body!.pipeThrough(new TextDecoderStream()).getReader();
    let told = '';
    const until = async (text: string) => {
      while (!told.includes(text)) told += (await reader.read()).value ?? '';
    };
    await until('event: memoryBytes');
    expect(told).toContain('event: graph');
    for (let i = 1; i <= 1000; i++) watch.note(`event ${i}`);
    await until('"event 1000"');
    expect(told).not.toContain('"event 1"');
    expect(told).toContain('"leftOut":0');
    await graph.addExport({ name: 'guest', node: 'disk' });
    await until('export guest was added');
    await reader.cancel();
  });

  it('are told to so many pages at most, and to one more when one has gone', async () => {
    await begin();
    const { port } = watch.address as { port: number };
    const pages = Array.from({ length: 32 }, () => connect(port, '127.0.0.1'));
    for (const page of pages) page.write('GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n');
    await Promise.all(pages.map((page) => once(page, 'data')));
    expect((await ask('/events')).status).toBe(503);
    pages[0].destroy();
    const again = () => {
      const page = connect(port, '127.0.0.1');
      pages.push(page);
      page.write('GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n');
      return once(page, 'data').then(([bytes]) => String(bytes).split(' ')[1]);
    };
    await expect.poll(again).toBe('200');
    for (const page of pages) page.destroy();
  });
});

describe('a page that takes nothing', () => {
  it('is left out, and its stream is ended when it was for too long', () => {
    const sent: string[] = [];
    const response = {
      writableLength: 0,
      write: (text: string) => sent.push(text),
      destroyed: false,
      destroy() {
        this.destroyed = true;
      },
    };
    let now = 0;
    const viewer = new Viewer(response as never, () => now);
    viewer.show([{ name: 'a', text: '1' }]);
    viewer.show([{ name: 'a', text: '1' }]);
    expect(sent).toEqual(['event: a\ndata: 1\n\n']);
    response.writableLength = 1e6;
    expect(viewer.takes()).toBe(false);
    now = 20_000;
    expect(viewer.takes()).toBe(false);
    expect(response.destroyed).toBe(false);
    now = 31_000;
    expect(viewer.takes()).toBe(false);
    expect(response.destroyed).toBe(true);
  });
});
