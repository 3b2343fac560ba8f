import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type Browser, chromium, type Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { startWatch, type Watch } from '#dist/daemon/watch/index.js';
import { Graph } from '#dist/graph/index.js';
import { NbdClient, NbdServer } from '#dist/nbd/index.js';
import { GraphJobs } from '../../support/graph-jobs.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const MIB = 1 << 20;
const SIZE = 16 * MIB;
const folder = temporaryFolder();
/** Kept after the tests, for people to look at. */
const PICTURES = fileURLToPath(new URL('../../../test-output/page/', import.meta.url));
/** Where Debian's package has it. */
const CHROMIUM = '/usr/bin/chromium';

let browser: Browser;
let graph: Graph;
let jobs: GraphJobs;
let server: NbdServer;
let guest: NbdClient;
let watch: Watch;
let page: Page;
/** What the page should never do: say something on the console, fail, or ask somebody else. */
let faults: string[] = [];

beforeAll(async () => {
  mkdirSync(PICTURES, { recursive: true });
  // For root it has no sandbox; it sees nothing but this page.
  const args = ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'];
  browser = await chromium.launch({ executablePath: CHROMIUM, args });
});

afterAll(() => browser?.close());

let made = 0;

/** A new file of this test. */
function place(name: string): string {
  return join(folder, `${made}-${name}`);
}

function qemuImg(...args: string[]): void {
  execFileSync('qemu-img', args, { stdio: ['ignore', 'ignore', 'inherit'] });
}

beforeEach(async () => {
  made++;
  const [base, top] = [place('base.qcow2'), place('disk.qcow2')];
  qemuImg('create', '-f', 'qcow2', base, String(SIZE));
  qemuImg('create', '-f', 'qcow2', '-b', base, '-F', 'qcow2', top);
  graph = new Graph();
  const file = { driver: 'file', filename: top } as const;
  await graph.add({ 'node-name': 'disk', driver: 'qcow2', file }, { writable: true });
  await graph.changeBitmaps({ disk: [{ type: 'add', name: 'nightly', granularity: 65536 }] });
  const device = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
  jobs = new GraphJobs(graph, [folder]);
  watch = await startWatch({ graph, jobs, listen: '127.0.0.1:0' });
  server = new NbdServer({ exports: [{ name: 'guest', device }] });
  const address = await server.listen({ type: 'unix', path: place('nbd.sock') });
  guest = await NbdClient.connect({ server: address, export: 'guest' });
  for (let at = 0; at < SIZE; at += 4 * MIB) await guest.write(at, new Uint8Array(MIB).fill(7));
  faults = [];
});

afterEach(async () => {
  await page?.close();
  await guest.close();
  await watch.close();
  await server.close();
  await graph.close();
});

async function open(url = watch.url!): Promise<void> {
  page = await browser.newPage({ viewport: { width: 1400, height: 1000 } });
  const { origin } = new URL(url);
  page.on('console', (message) => faults.push(`console: ${message.text()}`));
  page.on('pageerror', (error) => faults.push(`error: ${error.message}`));
  page.on('request', (request) => {
    if (new URL(request.url()).origin !== origin) faults.push(`request: ${request.url()}`);
  });
  await page.goto(url);
  await page.getByText('Live', { exact: true }).waitFor();
}

const picture = (name: string) =>
  page.screenshot({ path: join(PICTURES, `${name}.png`), fullPage: true });

const button = (name: string) => page.getByRole('button', { name, exact: true });

const jobCalled = (id: string) =>
  page.getByRole('listitem').filter({ has: page.getByRole('heading', { name: id, exact: true }) });

async function beginBackup(target: string, rate = '0.01'): Promise<void> {
  await button('Back up a node').click();
  await page.getByLabel('Node', { exact: true }).selectOption('disk');
  await page.getByLabel('Into the new file').fill(target);
  await page.getByLabel('MiB per second').fill(rate);
  await button('Start the backup').click();
}

describe('the page', () => {
  test('shows the graph, maps and bitmaps of disks, and exports with their clients, in light and dark', async () => {
    await open();
    await button('node disk, qcow2, 16 MiB, used by guest').waitFor();
    await button('export guest, uses disk').waitFor();
    const map = /Map of disk: 4 MiB data, 0 B zero, 12 MiB hole, 4 MiB dirty in nightly/;
    await page.getByRole('img', { name: map }).waitFor();
    await page.getByText(/^client \d+, Unix socket/).waitFor();
    await page.getByText(/client \d+ came to the export guest/).waitFor();
    await picture('light');
    await page.emulateMedia({ colorScheme: 'dark' });
    await picture('dark');
    await page.setViewportSize({ width: 420, height: 900 });
    await picture('narrow');
    // The token stays in no history.
    expect(new URL(page.url()).hash).toBe('');
    expect(faults).toEqual([]);
  });

  test('starts, pauses, resumes and finishes a backup by clicks, which holds what the disk holds', async () => {
    await open();
    const target = place('backup.qcow2');
    await beginBackup(target);
    const backup = jobCalled('backup-1');
    await backup.getByRole('button', { name: 'Pause' }).click();
    await backup.getByRole('button', { name: 'Resume' }).waitFor();
    const [{ job }] = jobs.list();
    expect(job.state).toBe('paused');
    await backup.getByRole('button', { name: 'Resume' }).click();
    await backup.getByRole('button', { name: 'Pause' }).waitFor();
    await picture('running');
    (job as unknown as { setRate(rate: undefined): void }).setRate(undefined);
    await backup.getByText('done', { exact: true }).waitFor();
    await picture('done');
    await backup.getByRole('button', { name: 'Dismiss' }).waitFor();
    expect(await backup.getByRole('progressbar').getAttribute('aria-valuenow')).toBe('100');
    expect(faults).toEqual([]);
    const raw = place('backup.raw');
    qemuImg('convert', '-f', 'qcow2', '-O', 'raw', target, raw);
    const disk = new Uint8Array(SIZE);
    for (let at = 0; at < SIZE; at += 16 * MIB)
      await guest.read(at, disk.subarray(at, at + 16 * MIB));
    expect((await readFile(raw)).equals(disk)).toBe(true);
  });

  test('asks before it stops a job, and stops it only when that is confirmed', async () => {
    await open();
    await beginBackup(place('stopped.qcow2'));
    const backup = jobCalled('backup-1');
    await backup.getByRole('button', { name: 'Stop' }).click();
    await page.getByText('Stop backup-1?').waitFor();
    await picture('question');
    // The button that does nothing has the focus, and so Enter does nothing.
    await page.keyboard.press('Enter');
    await page.getByText('Stop backup-1?').waitFor({ state: 'hidden' });
    expect(jobs.list()[0].job.state).toBe('running');
    await backup.getByRole('button', { name: 'Stop' }).click();
    await button('Stop it').click();
    await backup.getByText('stopped', { exact: true }).waitFor();
    expect(faults).toEqual([]);
  });

  test('switches a mirror, and completes it after a question', async () => {
    const target = place('mirror.qcow2');
    const image = { driver: 'qcow2', file: { driver: 'file', filename: target } } as const;
    await graph.create({ image, size: SIZE });
    const mirror = graph.mirror({ node: 'disk', target: { ...image, 'node-name': 'copy' } });
    jobs.add('mirror', ['disk'], mirror);
    await open();
    const shown = jobCalled('mirror-1');
    await shown.getByRole('button', { name: 'Write both at once' }).click();
    await shown.getByText('kept up to date, write-blocking').waitFor();
    await picture('mirror');
    await shown.getByRole('button', { name: 'Complete' }).click();
    await button('Complete it').click();
    await shown.getByText('done', { exact: true }).waitFor();
    await button('export guest, uses copy').waitFor();
    await page.getByText(/guest uses copy in place of/).waitFor();
    expect(faults).toEqual([]);
  });

  test('needs the token only to change something, and says where it is not the one', async () => {
    await open(new URL(watch.url!).origin);
    await beginBackup(place('token.qcow2'));
    await page.getByLabel('Token', { exact: true }).fill('something that is not it');
    await button('Use it').click();
    await page.getByText('this is not the token').waitFor();
    expect(jobs.list()).toEqual([]);
    // The browser itself tells of the refusal.
    expect(faults.splice(0)).toEqual([expect.stringContaining('401')]);
    await button('Start the backup').click();
    await page.getByLabel('Token', { exact: true }).fill(watch.token);
    await page.keyboard.press('Enter');
    await jobCalled('backup-1').waitFor();
    expect(faults).toEqual([]);
  });

  test('is used without a mouse', async () => {
    await open();
    await button('export guest, uses disk').focus();
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    await page.getByText(/^disk: qcow2, 16 MiB, open for writing/).waitFor();
    await picture('selected');
    await button('Back it up').focus();
    await page.keyboard.press('Enter');
    expect(await page.getByLabel('Node', { exact: true }).inputValue()).toBe('disk');
    await page.keyboard.press('Escape');
    await page.getByLabel('Node', { exact: true }).waitFor({ state: 'hidden' });
    expect(faults).toEqual([]);
  });

  test('goes on while a thousand events happen in a second, which reach it a few times a second', async () => {
    await open();
    // A string, as what runs in the page is none of Node's.
    await page.evaluate(`window.heard = 0;
      new EventSource('/events').addEventListener('events', () => { heard++; })`);
    let count = 0;
    let isOver = false;
    const flood = (async () => {
      while (!isOver) {
        for (let i = 0; i < 50; i++) watch.note(`event ${++count}`);
        await sleep(50);
      }
    })();
    await expect.poll(() => count).toBeGreaterThan(1000);
    await button('Back up a node').click();
    await button('Go back').click();
    await picture('events');
    await expect.poll(() => count).toBeGreaterThan(2000);
    isOver = true;
    await flood;
    await page.getByText(`event ${count}`, { exact: true }).waitFor();
    expect(
      await page
        .getByRole('listitem')
        .filter({ hasText: /event \d+$/ })
        .count(),
    ).toBeLessThan(101);
    expect(await page.evaluate('heard')).toBeLessThan(count / 20);
    expect(faults).toEqual([]);
  });
});
