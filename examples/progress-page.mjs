/**
 * A page that shows a copy while it runs, by server-sent events, and lets people pause it, slow it down and stop it.
 *
 *     node examples/progress-page.mjs SOURCE TARGET [PORT]
 *
 * Without arguments it copies a disk of its own, and is its own visitor.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compare, copy, createRawFile, openDevice } from 'lacuna';

const MIB = 1024 * 1024;

const PAGE = `<!doctype html>
<meta charset="utf-8">
<title>A copy</title>
<style>body { font: 16px sans-serif; max-width: 40em; margin: 3em auto } progress { width: 100% }</style>
<h1>A copy</h1>
<progress id="bar" max="1" value="0"></progress>
<p id="text">…</p>
<button data-do="pause">Pause</button> <button data-do="resume">Go on</button>
<button data-do="rate?bytes=10485760">10 MiB/s</button> <button data-do="rate">As fast as it goes</button>
<button data-do="stop">Stop</button>
<script>
  const events = new EventSource('/events');
  const text = document.querySelector('#text');
  events.onmessage = ({ data }) => {
    const { state, phase, doneBytes, totalBytes, bytesPerSecond } = JSON.parse(data);
    document.querySelector('#bar').value = totalBytes > 0 ? doneBytes / totalBytes : 0;
    const mib = (bytes) => (bytes / 1048576).toFixed(1) + ' MiB';
    text.textContent = state + ', ' + phase + ': ' + mib(doneBytes) + ' of ' + mib(totalBytes) + ', ' + mib(bytesPerSecond) + '/s';
  };
  events.addEventListener('end', ({ data }) => {
    text.textContent = data;
    events.close();
  });
  for (const button of document.querySelectorAll('button')) {
    button.onclick = () => fetch('/' + button.dataset.do, { method: 'POST' });
  }
</script>
`;

/** Serves the page of a job; what people press is done to the job. */
function createPage(job) {
  const visitors = new Set();
  let ended;
  const tell = (event) => {
    for (const visitor of visitors) visitor.write(event);
  };
  const end = (text) => {
    ended = `event: end\ndata: ${JSON.stringify(text)}\n\n`;
    tell(ended);
    for (const visitor of visitors) visitor.end();
  };
  // An error's own fields are not for JSON.
  job.on('progress', ({ error, ...moment }) => tell(`data: ${JSON.stringify(moment)}\n\n`));
  job.on('done', ({ movedBytes }) => end(`Done: ${movedBytes} bytes were moved.`));
  job.on('failed', ({ message }) => end(message));

  const actions = {
    '/pause': () => job.pause(),
    '/resume': () => job.resume(),
    '/stop': () => job.stop(),
    '/rate': (query) => job.setRate(query.has('bytes') ? Number(query.get('bytes')) : undefined),
  };
  return createServer((request, reply) => {
    const { pathname, searchParams } = new URL(request.url, 'http://localhost');
    // A page of somebody else's must not steer the copy.
    const isOwn = [undefined, `http://${request.headers.host}`].includes(request.headers.origin);
    if (request.method === 'POST' && isOwn && Object.hasOwn(actions, pathname)) {
      try {
        actions[pathname](searchParams);
        reply.writeHead(204).end();
      } catch (error) {
        reply.writeHead(400).end(error.message);
      }
    } else if (request.method === 'GET' && pathname === '/events') {
      reply.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
      if (ended !== undefined) return reply.end(ended);
      reply.write(`data: ${JSON.stringify(job.progress())}\n\n`);
      visitors.add(reply);
      request.on('close', () => visitors.delete(reply));
    } else if (request.method === 'GET' && pathname === '/') {
      reply.writeHead(200, { 'content-type': 'text/html' }).end(PAGE);
    } else {
      reply.writeHead(404).end();
    }
  });
}

/** Reads the events of a page to their end, as a browser does. */
async function visit(url) {
  const seen = [];
  const { body } = await fetch(`${url}/events`);
  let text = '';
  for await (const piece of body.pipeThrough(new TextDecoderStream())) text += piece;
  for (const event of text.split('\n\n')) {
    const [, data] = /^data: (.*)$/m.exec(event) ?? [];
    if (data !== undefined) seen.push(JSON.parse(data));
  }
  return seen;
}

async function listen(server, port) {
  await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
  return `http://127.0.0.1:${server.address().port}`;
}

const [source, target, port = '0'] = process.argv.slice(2);
if (source !== undefined && target !== undefined) {
  const job = copy({ source, target });
  const server = createPage(job);
  console.log(`${await listen(server, Number(port))}/ shows it`);
  await job.finally(() => server.close());
} else {
  const folder = await mkdtemp(join(tmpdir(), 'lacuna-example-'));
  const [disk, copied] = [join(folder, 'disk.raw'), join(folder, 'copy.raw')];
  await createRawFile(disk, 64 * MIB);
  const device = await openDevice(disk, { writable: true });
  await device.write(0, Buffer.alloc(16 * MIB, 'disk'));
  await device.close();
  const job = copy({ source: disk, target: copied });
  // Nobody knows when the visitor comes.
  job.pause();
  const server = createPage(job);
  const url = await listen(server, 0);
  try {
    const events = visit(url);
    await fetch(`${url}/resume`, { method: 'POST' });
    const seen = await events;
    await job;
    console.log(`the page has shown ${seen.length} events; the last: ${seen.at(-1)}`);
    const { equal } = await compare({ a: disk, b: copied });
    console.log(equal ? 'source and target are equal' : 'source and target differ');
  } finally {
    server.close();
    server.closeAllConnections();
    await rm(folder, { recursive: true });
  }
}
