import { type Command, Option } from 'commander';
import type { Daemon, DaemonArguments } from '../../../daemon/index.js';
import { LacunaError } from '../../../errors/index.js';
import { LONGEST_TIMER_MS } from '../../../util/index.js';
import { collect, type Shell } from '../../shell/index.js';
import { readText } from '../../text/index.js';
import { inBackground, tellReady } from './background.js';
import { PidFile } from './pid-file.js';
import { takeHandedSockets, tellSystemd } from './systemd.js';

interface DaemonFlags {
  object?: string[];
  blockdev?: string[];
  nbdServer?: string;
  export?: string[];
  chardev?: string[];
  monitor?: string[];
  qmp?: string[];
  config?: string;
  allow?: string[];
  http?: string;
  httpToken?: string;
  trace?: string;
  pidfile?: string;
  daemonize?: boolean;
  readyFd?: string;
}

/** What a file of arguments may say several times. */
const LISTS = ['object', 'blockdev', 'export', 'chardev', 'monitor', 'qmp'];

const EXAMPLES = `
Examples:
  lacuna daemon --qmp unix:/run/daemon.qmp --allow /var/lib/disks
  lacuna daemon --blockdev driver=file,node-name=f,filename=disk.qcow2 \\
      --blockdev driver=qcow2,node-name=disk,file=f \\
      --nbd-server addr.type=unix,addr.path=/run/daemon.nbd \\
      --export nbd,id=e,node-name=disk,writable=on \\
      --chardev socket,id=q,path=/run/daemon.qmp,server=on,wait=off --monitor chardev=q
  lacuna daemon --config daemon.json --pidfile /run/daemon.pid --daemonize

The arguments are those of qemu-storage-daemon, and so are the commands that clients of its monitors send; docs/qmp.md
lists them, and "lacuna qmp" sends them. Sockets of monitors are for their owner alone. A request to terminate, Ctrl-C,
or the command quit cancels jobs, answers what is in flight, stores bitmaps, and ends with exit code 0; a second signal
does not wait for that.`;

/** Tells commander what `lacuna daemon` takes, and what it does. */
export function registerDaemon(command: Command, shell: Shell): void {
  command
    .description('Runs a graph of nodes with its jobs and exports, which clients steer over QMP.')
    .option('--blockdev <description>', 'open a node; may be repeated', collect)
    .option(
      '--object <options>',
      'limits that nodes share (throttle-group), or what TLS needs (tls-creds-x509, tls-creds-psk); may be repeated',
      collect,
    )
    .option('--nbd-server <options>', 'let an NBD server listen')
    .option('--export <options>', 'serve a node; may be repeated', collect)
    .option('--chardev <options>', 'a socket for a monitor; may be repeated', collect)
    .option('--monitor <options>', 'let a monitor listen on a chardev; may be repeated', collect)
    .option('--qmp <unix:path>', 'let a monitor listen; may be repeated', collect)
    .option('--config <file>', 'read more of these from a JSON file: {"blockdev": [{...}], ...}')
    .option(
      '--allow <folder>',
      'clients may name files below this folder only; may be repeated',
      collect,
    )
    .option(
      '--http <address>',
      'show the daemon in a browser, and give metrics, on 127.0.0.1:PORT or unix:PATH',
    )
    .option('--http-token <file>', 'read what is needed to change something there from a file')
    .option('--trace <file>', 'write every request, client and job there, as lines of JSON')
    .option('--pidfile <path>', 'write the process id there, and remove it at the end')
    .option('--daemonize', 'go on in the background, once clients may connect')
    .addOption(new Option('--ready-fd <number>').hideHelp())
    .addHelpText('after', EXAMPLES)
    .action((flags: DaemonFlags) => daemonCommand(flags, shell));
}

async function daemonCommand(flags: DaemonFlags, shell: Shell): Promise<void> {
  const { monitors, nbd } = takeHandedSockets();
  if (flags.daemonize) {
    if (monitors.length === 0 && nbd === undefined) return inBackground(shell);
    throw new TypeError('a socket was handed over (LISTEN_FDS): leave out --daemonize');
  }
  const { Daemon } = await import('../../../daemon/index.js');
  const args = await argumentsOf(flags);
  const daemon = new Daemon({
    ...(flags.allow && { allow: flags.allow }),
    onRefused: ({ message }) => shell.note(`lacuna: warning: ${message}\n`),
  });
  let pidFile: PidFile | undefined;
  // A daemon that listens nowhere would end at once: nothing else keeps the process.
  const staysAlive = setInterval(() => {}, LONGEST_TIMER_MS);
  try {
    if (flags.trace !== undefined) daemon.trace(flags.trace);
    await daemon.apply(args, nbd === undefined ? {} : { nbd });
    for (const fd of monitors) await daemon.listen({ fd });
    await watch(daemon, flags, shell);
    if (flags.pidfile !== undefined) pidFile = PidFile.write(flags.pidfile);
    shell.tellProgress = () => `running ${daemon.graph.nodes.length} nodes`;
    tellReady(flags.readyFd);
    await tellSystemd(shell);
    await Promise.race([daemon.ended, interrupted(shell.signal)]);
  } finally {
    try {
      await daemon.close();
    } finally {
      clearInterval(staysAlive);
      pidFile?.remove();
    }
  }
}

/** Serves the page, and says where it is. */
async function watch(
  daemon: Daemon,
  { http: listen, httpToken: file }: DaemonFlags,
  shell: Shell,
): Promise<void> {
  if (listen === undefined) {
    if (file !== undefined) throw new TypeError('--http-token goes with --http alone');
    return;
  }
  const token = file === undefined ? {} : { token: (await readText(file, '--http-token')).trim() };
  const { url, token: needed } = await daemon.watch({ listen, ...token });
  const page = url === undefined ? listen : file === undefined ? url : url.split('#')[0];
  const how = file === undefined && url === undefined ? `, and its token is ${needed}` : '';
  shell.note(`The page of the daemon is at ${page}${how}\n`);
}

async function argumentsOf(flags: DaemonFlags): Promise<DaemonArguments> {
  const { object = [], blockdev = [], export: exports = [] } = flags;
  const { chardev = [], monitor = [], qmp = [] } = flags;
  const file = flags.config === undefined ? {} : await configOf(flags.config);
  if (flags.nbdServer !== undefined && file['nbd-server'] !== undefined) {
    throw new TypeError('--nbd-server is in the file of --config already: leave out one');
  }
  const server = flags.nbdServer ?? file['nbd-server'];
  return {
    ...file,
    object: [...(file.object ?? []), ...object],
    blockdev: [...(file.blockdev ?? []), ...blockdev],
    export: [...(file.export ?? []), ...exports],
    chardev: [...(file.chardev ?? []), ...chardev],
    monitor: [...(file.monitor ?? []), ...monitor],
    qmp: [...(file.qmp ?? []), ...qmp],
    ...(server !== undefined && { 'nbd-server': server }),
  };
}

async function configOf(path: string): Promise<DaemonArguments> {
  const text = await readText(path, '--config');
  let config: unknown;
  try {
    config = JSON.parse(text);
  } catch (cause) {
    const message = `${path} is not valid JSON: ${(cause as Error).message}`;
    throw new LacunaError('ERR_DEVICE_FORMAT', message, { device: path, cause });
  }
  if (typeof config !== 'object' || config === null || Array.isArray(config)) {
    throw new TypeError(`${path} must hold one JSON object, such as {"blockdev": [...]}`);
  }
  const wrong = Object.entries(config).find(
    ([key, value]) => LISTS.includes(key) && !Array.isArray(value),
  );
  if (wrong !== undefined) throw new TypeError(`${path}: "${wrong[0]}" must be a list`);
  return config as DaemonArguments;
}

function interrupted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
