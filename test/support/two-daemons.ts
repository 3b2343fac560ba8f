/** qemu-storage-daemon and ours, started by the same arguments, and asked the same. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const PATIENCE_MS = 60_000;

export type Answer = {
  readonly return?: unknown;
  readonly error?: { class: string; desc: string };
};
export interface Event {
  readonly event: string;
  readonly data?: Record<string, unknown>;
}

/** A daemon that was started with arguments in which FOLDER stands for a folder of its own. */
export class AskedDaemon {
  readonly folder: string;
  readonly events: Event[] = [];
  readonly #child: ChildProcess;
  #socket: Socket | undefined;
  readonly #answers: Answer[] = [];
  #wake: () => void = () => {};
  /** Behind the last event of each job that was waited for. */
  readonly #heeded = new Map<string, number>();
  #id = 0;

  static async start(command: 'qemu-storage-daemon' | 'lacuna', folder: string, args: string[]) {
    const daemon = new AskedDaemon(command, folder, args);
    await daemon.#connect(join(folder, 'qmp'));
    return daemon;
  }

  private constructor(command: string, folder: string, args: string[]) {
    mkdirSync(folder);
    this.folder = folder;
    const own = args.map((one) => one.replaceAll('FOLDER', folder));
    const [program, ...before] =
      command === 'lacuna' ? [process.execPath, MAIN, 'daemon'] : [command];
    this.#child = spawn(program, [...before, ...own], { cwd: folder, stdio: 'inherit' });
  }

  /** Sends a command, and gives the answer with FOLDER in the place of the folder. */
  async ask(execute: string, args: object = {}): Promise<Answer> {
    const id = ++this.#id;
    const text = JSON.stringify({ execute, arguments: args, id });
    this.#socket?.write(`${text.replaceAll('FOLDER', this.folder)}\n`);
    const isThere = (): Answer | undefined =>
      this.#answers.find((one) => (one as never as { id: number }).id === id);
    await this.#until(() => isThere() !== undefined, `an answer to ${text}`);
    const { id: _, ...answer } = isThere() as Answer & { id: number };
    this.#answers.length = 0;
    return JSON.parse(JSON.stringify(answer).replaceAll(this.folder, 'FOLDER')) as Answer;
  }

  /** Waits until a job has told a state, since the last time that this was asked. */
  async state(id: string, status: string): Promise<void> {
    const from = this.#heeded.get(id) ?? 0;
    const at = () =>
      this.events.findIndex(
        ({ data }, i) => i >= from && data?.id === id && data.status === status,
      );
    await this.#until(() => at() >= 0, `job ${id} to be ${status}`);
    this.#heeded.set(id, at() + 1);
  }

  /** Removes everything that a session has left. */
  async clear(): Promise<void> {
    for (const { id } of (await this.ask('query-jobs')).return as { id: string }[]) {
      await this.ask('job-cancel', { id });
      await this.ask('job-dismiss', { id });
      while (
        ((await this.ask('query-jobs')).return as { id: string }[]).some((job) => job.id === id)
      ) {
        await this.ask('job-dismiss', { id });
        await sleep(5);
      }
    }
    await this.ask('nbd-server-stop');
    for (let left = await this.#nodes(); left.length > 0; left = await this.#nodes()) {
      for (const name of left) await this.ask('blockdev-del', { 'node-name': name });
    }
    // QEMU has no such path before there was an object.
    const { return: objects = [] } = await this.ask('qom-list', { path: '/objects' });
    for (const { name, type } of objects as { name: string; type: string }[]) {
      if (type.startsWith('child<')) await this.ask('object-del', { id: name });
    }
    this.events.length = 0;
    this.#heeded.clear();
  }

  async stop(): Promise<number | null> {
    this.#socket?.destroy();
    const ended = once(this.#child, 'close');
    this.#child.kill('SIGTERM');
    const [code] = await ended;
    return code as number | null;
  }

  async #nodes(): Promise<string[]> {
    const { return: nodes } = await this.ask('query-named-block-nodes');
    return (nodes as { 'node-name': string }[])
      .map((node) => node['node-name'])
      .filter((name) => !name.startsWith('#') && !name.includes('.'));
  }

  async #connect(path: string): Promise<void> {
    for (const end = Date.now() + PATIENCE_MS; ; ) {
      const socket = connect({ path });
      try {
        await once(socket, 'connect');
        this.#socket = socket.setMaxListeners(0);
        break;
      } catch (error) {
        if (Date.now() > end || this.#child.exitCode !== null) throw error;
        await sleep(20);
      }
    }
    let text = '';
    this.#socket.setEncoding('utf8').on('data', (piece) => {
      text += piece;
      const lines = text.split('\n');
      text = lines.pop() ?? '';
      for (const line of lines) this.#received(JSON.parse(line));
      this.#wake();
    });
    this.#socket.on('error', () => {});
    await this.ask('qmp_capabilities');
  }

  #received(message: Record<string, unknown>): void {
    if ('event' in message) {
      const { timestamp: _, ...event } = message;
      this.events.push(event as never);
    } else if (!('QMP' in message)) this.#answers.push(message as Answer);
  }

  async #until(isSo: () => boolean, what: string): Promise<void> {
    const late = setTimeout(() => this.#socket?.destroy(new Error(what)), PATIENCE_MS);
    try {
      while (!isSo()) {
        if (this.#socket?.destroyed) throw new Error(`the daemon is gone, or did not give ${what}`);
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
          this.#socket?.once('close', resolve);
        });
      }
    } finally {
      clearTimeout(late);
    }
  }
}
