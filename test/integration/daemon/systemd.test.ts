/** `lacuna daemon` as a service: readiness and handed sockets, as systemd has them, and its trace. */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Monitor } from 'lacuna/qmp';
import { expect, onTestFinished, test } from 'vitest';
import { runCli } from '../../support/run-cli.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

const MAIN = fileURLToPath(new URL('../../../dist/cli/main.js', import.meta.url));
const UNITS = fileURLToPath(new URL('../../../examples/', import.meta.url));

workInNewFolders();

/** What systemd does: sockets as descriptors from 3 on, and a socket that hears of readiness. */
const SYSTEMD = `
import os, socket, sys
names, *command = sys.argv[1:]
heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
heard.bind('notify')
listeners = []
for name in names.split(':') if names else []:
    listeners.append(socket.socket(socket.AF_UNIX))
    listeners[-1].bind(name + '.sock')
    listeners[-1].listen(5)
if os.fork() == 0:
    for i, one in enumerate(listeners): os.dup2(one.fileno(), 10 + i)
    for i in range(len(listeners)): os.dup2(10 + i, 3 + i)
    if listeners: os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(listeners)), LISTEN_FDNAMES=names)
    os.environ['NOTIFY_SOCKET'] = os.path.abspath('notify')
    os.execv(command[0], command)
heard.settimeout(600)
while True:
    text = heard.recv(4096).decode().replace(chr(10), ' ')
    if 'READY' in text:
        print(text, flush=True)
    if 'BARRIER' in text:
        break
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))`;

async function startedBySystemd(names: string, ...args: string[]) {
  const all = ['-c', SYSTEMD, names, process.execPath, MAIN, 'daemon', ...args];
  const child = spawn('/usr/bin/python3', all, { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(child, 'exit');
  const [line] = await once(createInterface(child.stdout), 'line');
  const [, pid] = /^READY=1 MAINPID=(\d+)$/.exec(String(line)) ?? [];
  onTestFinished(() => {
    try {
      process.kill(Number(pid), 'SIGKILL');
    } catch {
      // It has ended.
    }
  });
  return { pid: Number(pid), ended };
}

test('systemd hears when clients may connect, and its sockets are listened on and stay', async () => {
  const { pid, ended } = await startedBySystemd(
    'nbd:qmp',
    ...['--blockdev', 'driver=null-co,node-name=n,size=1M', '--export', 'nbd,id=e,node-name=n'],
  );
  const uri = `nbd+unix:///n?socket=${process.cwd()}/nbd.sock`;
  expect(execFileSync('nbdinfo', ['--size', uri], { encoding: 'utf8' })).toBe('1048576\n');
  const monitor = await Monitor.connect({ path: join(process.cwd(), 'qmp.sock') });
  onTestFinished(() => monitor.close());
  expect(await monitor.execute('query-block-exports')).toMatchObject([{ id: 'e' }]);
  process.kill(pid, 'SIGTERM');
  expect(await ended).toEqual([0, null]);
  expect(['nbd.sock', 'qmp.sock'].map((name) => existsSync(name))).toEqual([true, true]);
});

test('a handed socket whose name says nothing beside others is refused', async () => {
  const script = SYSTEMD.replace(
    'heard.settimeout(600)',
    'sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))',
  );
  const all = ['-c', script, 'qmp:web', process.execPath, MAIN, 'daemon'];
  const child = spawn('/usr/bin/python3', all, { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text) => {
    said += text;
  });
  expect(await once(child, 'close')).toEqual([2, null]);
  expect(said).toMatch(/handed over as "web": say FileDescriptorName=qmp/);
});

test('the units of the example are as systemd wants them', () => {
  const units = ['lacuna-daemon.service', 'lacuna-daemon.socket'].map((name) => join(UNITS, name));
  const { stderr } = spawnSync('systemd-analyze', ['verify', ...units], { encoding: 'utf8' });
  // The program and its page are installed elsewhere here, or not at all.
  const others = stderr.split('\n').filter((line) => !/^$|not executable|man lacuna/.test(line));
  expect(others).toEqual([]);
});

test('a trace tells of requests, clients and jobs, behind what the file has', async () => {
  const path = `${process.cwd()}/nbd`;
  const args = [
    ...['--trace', 'trace.jsonl', '--pidfile', 'pid', '--qmp', 'unix:qmp'],
    ...['--blockdev', 'driver=memory,node-name=n,size=1M'],
    ...['--blockdev', 'driver=memory,node-name=m,size=1M'],
    ...['--nbd-server', `addr.type=unix,addr.path=${path}`],
    ...['--export', 'nbd,id=e,node-name=n,writable=on'],
  ];
  for (const round of [1, 2]) {
    const ended = runCli(['daemon', ...args]);
    await expect.poll(() => existsSync('pid')).toBe(true);
    execFileSync('qemu-io', [
      '-f',
      'raw',
      '-c',
      'write -P 7 64k 4k',
      `nbd+unix:///n?socket=${path}`,
    ]);
    const monitor = await Monitor.connect({ path: join(process.cwd(), 'qmp') });
    await monitor.execute('blockdev-backup', {
      ...{ 'job-id': 'j', device: 'n', target: 'm', sync: 'full' },
    });
    await expect.poll(() => monitor.execute('query-jobs')).toEqual([]);
    await monitor.execute('quit');
    monitor.close();
    expect(await ended).toMatchObject({ code: 0, stderr: '' });
    const lines = readFileSync('trace.jsonl', 'utf8').trimEnd().split('\n');
    const all = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
    const written = { operation: 'write', offset: 65536, length: 4096 };
    const found = (wanted: object) => all.filter((one) => isPartOf(wanted, one)).length;
    const nbd = { channel: 'lacuna:nbd-server:request', export: 'n', ...written };
    expect(found(nbd)).toBe(round);
    expect(found({ channel: 'lacuna:device:request', node: 'n', ...written })).toBe(round);
    expect(found({ channel: 'lacuna:nbd-server:client', event: 'left' })).toBe(round);
    expect(found({ channel: 'lacuna:job', event: 'done', state: 'done' })).toBe(round);
  }
  expect(statSync('trace.jsonl').mode & 0o777).toBe(0o600);
  const refused = await runCli(['daemon', '--trace', '/dev/null']);
  expect(refused).toMatchObject({ code: 1, stderr: expect.stringMatching(/no regular file/) });
});

function isPartOf(wanted: object, one: Record<string, unknown>): boolean {
  return Object.entries(wanted).every(([key, value]) => one[key] === value);
}
