import { enterToken, hasToken, takeToken } from './api.js';
import { BackupForm } from './backup-form.js';
import { DisksView } from './disks-view.js';
import { byId, setAttributes, setText } from './dom.js';
import { bytes } from './format.js';
import { GraphView } from './graph-view.js';
import { JobsView } from './jobs-view.js';
import { EventsView, showExports } from './lists-view.js';
import type { Export, Graph, Happening, Job, Traffic } from './types.js';

/** What was told last of each part, as text: it is read when it is drawn. */
const told = new Map<string, string>();
const changed = new Set<string>();
let drawing = false;

/** Between two tries to connect. */
const AGAIN_MS = 3000;

const form = new BackupForm();
const graphView = new GraphView((node) => form.open(node));
const jobsView = new JobsView(say);
const disksView = new DisksView();
const eventsView = new EventsView();

/** Tells those who hear the page. */
function say(text: string): void {
  setText(byId('said'), text);
}

function read<T>(name: string, otherwise: T): T {
  const text = told.get(name);
  return text === undefined ? otherwise : JSON.parse(text);
}

/** However much is told, it is drawn once for a picture of the screen. */
function draw(): void {
  drawing = false;
  const isNew = (name: string) => changed.has(name);
  if (isNew('jobs')) jobsView.show(read<readonly Job[]>('jobs', []));
  if (isNew('graph')) {
    const graph = read<Graph>('graph', { nodes: [], users: [], edges: [] });
    form.show(graph);
    graphView.show(graph);
    disksView.show(graph, (name) => graphView.depth(name));
  }
  if (isNew('exports')) showExports(read<readonly Export[]>('exports', []));
  if (isNew('memoryBytes')) {
    setText(byId('memory'), `${bytes(read<number>('memoryBytes', 0))} of memory`);
  }
  eventsView.show();
  showToken();
  changed.clear();
}

/** Also where nothing is told: then nothing passes. */
function drawTraffic(): void {
  const traffic = read<Record<string, Traffic>>('traffic', {});
  graphView.flow(traffic, performance.now());
  disksView.traffic(traffic);
}

function soon(): void {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(draw);
}

function showLink(state: string, text: string): void {
  setAttributes(byId('link'), { 'data-state': state });
  setText(byId('link'), text);
}

function listen(): void {
  const source = new EventSource('/events');
  source.addEventListener('open', () => {
    eventsView.clear();
    showLink('live', 'Live');
  });
  source.addEventListener('error', () => {
    showLink('lost', 'Not connected: trying again');
    // Where it was refused, the browser does not try again by itself.
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, AGAIN_MS);
  });
  for (const name of ['graph', 'jobs', 'exports', 'traffic', 'memoryBytes']) {
    source.addEventListener(name, ({ data }: MessageEvent<string>) => {
      told.set(name, data);
      changed.add(name);
      soon();
    });
  }
  source.addEventListener('events', ({ data }: MessageEvent<string>) => {
    const { events, leftOut } = JSON.parse(data) as { events: Happening[]; leftOut: number };
    eventsView.add(events, leftOut);
    soon();
  });
}

function showToken(): void {
  byId('token').hidden = hasToken();
}

takeToken();
showToken();
byId('token').addEventListener('click', () => void enterToken().then(showToken));
byId('new-backup').addEventListener('click', () => form.open());
listen();
setInterval(drawTraffic, 1000);
