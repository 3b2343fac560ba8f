/** A libvirt of a test's own, with everything that it keeps in a folder of the test, and domains without an operating system. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { LibvirtMachine } from 'lacuna/qemu';
import type { Random } from 'lacuna/testing';
import { run } from './peers.js';

export const DOMAIN_DISK_BYTES = 2 ** 20;
const PLACES = {
  etc: '/etc/libvirt',
  run: '/run/libvirt',
  lib: '/var/lib/libvirt',
  cache: '/var/cache/libvirt',
  log: '/var/log/libvirt',
};
/** What QEMU can is looked for as its default user: where that may not use KVM, it is looked for again for each machine. */
const QEMU_CONF = `
user = "root"
group = "root"
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
remember_owner = 0
`;
const LIBVIRTD_CONF = `
auth_unix_rw = "none"
log_outputs = "4:stderr"
`;
const AGENT_CHANNEL = `<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>`;
const PAUSE_MS = 20;
const INIT = fileURLToPath(new URL('libvirt-init.py', import.meta.url));

export class Libvirt {
  readonly folder: string;
  readonly connect: string;
  readonly #init: ChildProcess;
  #domains = 0;

  static async start(): Promise<Libvirt> {
    // Short, because of the sockets in it; and QEMU's user must be able to pass it.
    const folder = await mkdtemp(join(tmpdir(), 'lv-'));
    await chmod(folder, 0o711);
    for (const place of Object.keys(PLACES)) mkdirSync(join(folder, place));
    writeFileSync(join(folder, 'etc/qemu.conf'), QEMU_CONF);
    writeFileSync(join(folder, 'etc/libvirtd.conf'), LIBVIRTD_CONF);
    const libvirt = new Libvirt(folder);
    await libvirt.start();
    return libvirt;
  }

  private constructor(folder: string) {
    this.folder = folder;
    this.connect = `qemu:///system?socket=${folder}/run/libvirt-sock`;
    const binds = Object.entries(PLACES).map(
      ([from, to]) => `mkdir -p ${to} && mount --bind ${folder}/${from} ${to}`,
    );
    const daemon = `exec libvirtd -f ${folder}/etc/libvirtd.conf -p ${folder}/libvirtd.pid`;
    // In a mount name space of its own, which nothing else on this machine sees.
    const program = ['unshare', '-m', 'sh', '-ec', [...binds, daemon].join('\n')];
    this.#init = spawn('python3', [INIT, ...program], { stdio: ['pipe', 'pipe', 'ignore'] });
  }

  /** Begins the daemon, again where it was stopped; machines go on meanwhile. */
  async start(): Promise<void> {
    this.#init.stdin!.write('start\n');
    let failure: unknown;
    for (let tries = 0; this.#init.exitCode === null && tries < 3000; tries++) {
      try {
        await this.virsh('list');
        return;
      } catch (error) {
        failure = error;
      }
      await sleep(PAUSE_MS);
    }
    throw new Error('libvirtd does not answer; install libvirt-daemon-system', { cause: failure });
  }

  /** Stops the daemon; machines go on. */
  async stop(): Promise<void> {
    this.#init.stdin!.write('stop\n');
    await once(this.#init.stdout!, 'data');
  }

  /** The process of the daemon. */
  get pid(): number {
    return Number(readFileSync(join(this.folder, 'libvirtd.pid'), 'utf8'));
  }

  /** The process of a machine. */
  pidOf(domain: string): number {
    return Number(readFileSync(join(this.folder, `run/qemu/${domain}.pid`), 'utf8'));
  }

  /** Ends all machines, the daemon, and everything that it kept. */
  async remove(): Promise<void> {
    const exited = once(this.#init, 'exit');
    await this.stop();
    // It ends the machines that are left.
    this.#init.stdin!.end();
    await exited;
    await rm(this.folder, { recursive: true, force: true });
  }

  /**
   * Puts a virsh before the system's that can be told by its environment to fail at a command, once, before or after it was done, or
   * to kill the process that runs it: VIRSH_FAULT is `fail before backup-begin`, say.
   *
   * @returns the PATH that leads to it
   */
  async faultyVirsh(): Promise<string> {
    const folder = join(this.folder, 'bin');
    const program = join(folder, 'virsh');
    const real = (await run('sh', ['-c', 'command -v virsh'])).trim();
    mkdirSync(folder, { recursive: true });
    // Its fourth argument is the command.
    const script = `#!/bin/sh
at() {
  case "$VIRSH_FAULT" in
  "fail $1 $2") mkdir "${folder}/done" 2>/dev/null && exit 1 ;;
  "kill $1 $2") kill -9 $PPID; exit 1 ;;
  esac
}
at before "$4"
"${real}" "$@"
code=$?
at after "$4"
exit $code
`;
    writeFileSync(program, script);
    await chmod(program, 0o755);
    await rm(join(folder, 'done'), { recursive: true, force: true });
    return `${folder}:${process.env.PATH}`;
  }

  /**
   * Puts a virsh before the system's that answers for a guest agent, which no machine without an operating system has: it says
   * that one is connected, and that file systems freeze and thaw. It notes these calls, and those that begin a backup.
   *
   * @returns the PATH that leads to it, and the calls so far
   */
  async virshWithAgent(): Promise<{ path: string; calls(): string[] }> {
    const folder = join(this.folder, 'agent');
    const [program, log] = ['virsh', 'log'].map((name) => join(folder, name));
    const real = (await run('sh', ['-c', 'command -v virsh'])).trim();
    mkdirSync(folder, { recursive: true });
    const script = `#!/bin/sh
case " $* " in
*" domfsfreeze "*) echo freeze >> "${log}"; echo "Froze 2 filesystem(s)"; exit ;;
*" domfsthaw "*) echo thaw >> "${log}"; echo "Thawed 2 filesystem(s)"; exit ;;
*" backup-begin "*) echo begin >> "${log}" ;;
*" dumpxml "*) "${real}" "$@" | sed "s/state='disconnected'/state='connected'/"; exit ;;
esac
exec "${real}" "$@"
`;
    writeFileSync(program, script);
    writeFileSync(log, '');
    await chmod(program, 0o755);
    return {
      path: `${folder}:${process.env.PATH}`,
      calls: () => readFileSync(log, 'utf8').split('\n').filter(Boolean),
    };
  }

  virsh(...args: string[]): Promise<string> {
    return run('virsh', ['-q', '-c', this.connect, ...args]);
  }

  async domain(options: DomainOptions = {}): Promise<TestDomain> {
    const domain = new TestDomain(this, `vm${this.#domains++}`, options);
    await domain.create();
    return domain;
  }
}

export interface DomainOptions {
  /** The format of each disk. Default: one qcow2. */
  readonly formats?: readonly ('qcow2' | 'raw')[];
  readonly isTransient?: boolean;
  /** It has a channel for a guest agent, to which none is connected. */
  readonly hasAgentChannel?: boolean;
  /** QEMU runs as another user than the test, as it does on most hosts. */
  readonly isOtherUser?: boolean;
}

/** A machine without an operating system: the test writes in its place, through the devices. */
export class TestDomain {
  readonly name: string;
  readonly folder: string;
  readonly libvirt: Libvirt;
  disks: readonly { name: string; file: string; format: string }[];
  /** What the disks hold. */
  readonly content: Buffer[];
  readonly #options: DomainOptions;

  constructor(libvirt: Libvirt, name: string, options: DomainOptions) {
    const { formats = ['qcow2'] } = options;
    this.libvirt = libvirt;
    this.name = name;
    this.#options = options;
    this.folder = join(libvirt.folder, `${name}.sessions`);
    this.disks = formats.map((format, index) => {
      const disk = `vd${'abc'[index]}`;
      return { name: disk, format, file: join(libvirt.folder, `${name}-${disk}`) };
    });
    this.content = this.disks.map(() => Buffer.alloc(DOMAIN_DISK_BYTES));
  }

  async create(): Promise<void> {
    mkdirSync(this.folder);
    await chmod(this.folder, 0o711);
    for (const { file, format } of this.disks) {
      await run('qemu-img', ['create', '-q', '-f', format, file, String(DOMAIN_DISK_BYTES)]);
    }
    writeFileSync(this.#file, this.#xml());
    if (!this.#options.isTransient) await this.libvirt.virsh('define', this.#file);
    await this.boot();
  }

  async boot(): Promise<void> {
    if (this.#options.isTransient) await this.libvirt.virsh('create', this.#file);
    else await this.libvirt.virsh('start', this.name);
  }

  find(): Promise<LibvirtMachine> {
    return LibvirtMachine.find(this.options);
  }

  get options() {
    return { domain: this.name, connect: this.libvirt.connect, folder: this.folder };
  }

  get pid(): number {
    return this.libvirt.pidOf(this.name);
  }

  /** Ends the machine, exchanges the images of its first two disks, and begins it again. */
  async exchange(): Promise<void> {
    await this.libvirt.virsh('destroy', this.name);
    const [first, second, ...others] = this.disks;
    this.disks = [{ ...first, file: second.file }, { ...second, file: first.file }, ...others];
    this.content.splice(0, 2, this.content[1], this.content[0]);
    writeFileSync(this.#file, this.#xml());
    await this.libvirt.virsh('define', this.#file);
    await this.boot();
  }

  /** Kills QEMU, and waits until libvirt knows. */
  async kill(): Promise<void> {
    // What the guest has not flushed may be lost.
    for (const index of this.disks.keys()) await this.#io(index, 'flush');
    process.kill(this.pid, 'SIGKILL');
    while (true) {
      const running = await this.libvirt.virsh('list', '--name');
      if (!running.split('\n').includes(this.name)) return;
      await sleep(PAUSE_MS);
    }
  }

  /** Writes and zeroes a few ranges of each disk, as the guest would. */
  async scribble(random: Random, times = 3): Promise<void> {
    for (const [disk] of this.disks.entries()) {
      for (let n = 0; n < times; n++) {
        const offset = 512 * random.below(DOMAIN_DISK_BYTES / 512 - 16);
        await this.write(disk, {
          offset,
          length: 512 * (1 + random.below(16)),
          value: random.below(256),
        });
      }
    }
  }

  async write(
    disk: number,
    { offset, length, value }: { offset: number; length: number; value: number },
  ): Promise<void> {
    const how = value === 0 ? '-z' : `-P ${value}`;
    await this.#io(disk, `write ${how} ${offset} ${length}`);
    this.content[disk].fill(value, offset, offset + length);
  }

  /** Everything that a backup could have left: in libvirt, in QEMU, in the images, and in folders. */
  async leftovers(): Promise<string[]> {
    const checkpoints = await this.libvirt.virsh('checkpoint-list', this.name, '--name');
    const nodes = await this.#query('query-named-block-nodes');
    const jobs = await this.#query('query-jobs');
    const bitmaps = nodes.flatMap((node) =>
      ((node['dirty-bitmaps'] as { name: string }[]) ?? []).map(({ name }) => `bitmap ${name}`),
    );
    return [
      ...checkpoints
        .split('\n')
        .filter(Boolean)
        .map((name) => `checkpoint ${name.trim()}`),
      ...bitmaps,
      ...jobs.map(({ id }) => `job ${id}`),
      ...readdirSync(this.folder).map((name) => `file ${name}`),
    ];
  }

  /** What must be there when the backup of this generation was the last one. */
  tracesOf(generation: string | undefined): string[] {
    const tracked = this.disks.filter(({ format }) => format === 'qcow2');
    const name = `lacuna-${generation}`;
    return [`checkpoint ${name}`, ...tracked.map(() => `bitmap ${name}`)];
  }

  async #io(disk: number, what: string): Promise<void> {
    // Through the device: a node would bypass the filters of a backup.
    const device = `/machine/peripheral/virtio-disk${disk}/virtio-backend`;
    const command = `qemu-io -d ${device} "${what}"`;
    await this.libvirt.virsh('qemu-monitor-command', this.name, '--hmp', command);
  }

  get #file(): string {
    return join(this.libvirt.folder, `${this.name}.xml`);
  }

  async #query(command: string): Promise<Record<string, unknown>[]> {
    const text = JSON.stringify({ execute: command });
    return JSON.parse(await this.libvirt.virsh('qemu-monitor-command', this.name, text)).return;
  }

  #xml(): string {
    // The same at each start, as a machine has that is not installed anew.
    const uuid = `00000000-0000-4000-8000-${Buffer.from(this.name.padEnd(6)).toString('hex')}`;
    const disks = this.disks.map(
      ({ name, file, format }) =>
        `<disk type='file' device='disk'><driver name='qemu' type='${format}' discard='unmap'/>
         <source file='${file}'/><target dev='${name}' bus='virtio'/></disk>`,
    );
    const user = `<seclabel type='static' model='dac' relabel='yes'><label>+65534:+65534</label></seclabel>`;
    return `<domain type='qemu'><name>${this.name}</name><uuid>${uuid}</uuid>
      <memory unit='MiB'>16</memory><vcpu>1</vcpu>
      <os><type arch='x86_64' machine='pc'>hvm</type></os>
      <devices>${disks.join('')}
        <disk type='file' device='cdrom'><target dev='hdc' bus='ide'/><readonly/></disk>
        ${this.#options.hasAgentChannel ? AGENT_CHANNEL : ''}
        <controller type='usb' model='none'/><memballoon model='none'/>
      </devices>${this.#options.isOtherUser ? user : ''}</domain>`;
  }
}
