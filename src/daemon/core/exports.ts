import type { Bitmap, BitmapUse } from '../../bitmap/index.js';
import type { BlockDevice } from '../../block/index.js';
import type { Graph, Node, Root } from '../../graph/index.js';
import {
  type NbdListenAddress,
  NbdServer,
  type NbdServerAddress,
  type NbdServerOptions,
} from '../../nbd/index.js';
import { removeAbandoned, settleAll } from '../../util/index.js';
import type { Tell } from './daemon-job.js';
import { nodeNamed } from './nodes.js';
import { isId, refusal } from './refusal.js';

/** What clients of NBD find. */
export interface ExportOptions {
  /** What it is called in QMP. */
  readonly id: string;
  readonly node: string;
  /** What NBD clients ask for. */
  readonly name: string;
  readonly description: string | undefined;
  readonly writable: boolean;
  readonly bitmaps: readonly { readonly node: string; readonly name: string }[];
}

interface Exported {
  readonly id: string;
  readonly name: string;
  readonly node: string;
  readonly root: Root;
  readonly server: NbdServer;
  readonly uses: readonly BitmapUse[];
  closing: Promise<void> | undefined;
}

/** The longest name of an export that NBD has. */
const LONGEST_NAME = 4096;

/** Exports over NBD, and the server that serves them. */
export class Exports {
  readonly #graph: Graph;
  readonly #tell: Tell;
  readonly #exports = new Map<string, Exported>();
  /** Names in QMP and in NBD of those that are being added. */
  readonly #reserved = new Set<string>();
  #server: NbdServer | undefined;
  #isStarting = false;
  /** What ends a server that has been told to. */
  #stopping: Promise<void> | undefined;
  #isClosed = false;

  constructor(graph: Graph, tell: Tell) {
    this.#graph = graph;
    this.#tell = tell;
  }

  /** Where the server listens. */
  get address(): NbdServerAddress | undefined {
    return this.#server?.address;
  }

  /** All, in the order in which they were added. */
  list() {
    return [...this.#exports.values()].map(({ id, node, closing }) => ({
      id,
      type: 'nbd' as const,
      'node-name': node,
      'shutting-down': closing !== undefined,
    }));
  }

  /** Those that may be written, with the nodes that they lead to now. */
  written(): { readonly id: string; readonly node: Node }[] {
    return [...this.#exports.values()]
      .filter(({ root }) => root.capabilities.write)
      .map(({ id, root }) => ({ id, node: root.node }));
  }

  /** How many clients use an export. @throws QmpCommandError */
  clientsOf(id: string): number {
    const { server, name } = this.#exported(id);
    return server.clientsOf(name);
  }

  /** Starts the server. @throws QmpCommandError; LacunaError ERR_DEVICE_OPEN where it cannot listen. */
  async start(
    address: NbdListenAddress,
    options: Pick<NbdServerOptions, 'tls' | 'maxConnections'>,
  ): Promise<void> {
    this.#checkOpen();
    if (this.#server !== undefined || this.#isStarting) throw refusal('NBD server already running');
    this.#isStarting = true;
    try {
      const server = new NbdServer({ exports: [], ...options });
      if (address.type === 'unix') await removeAbandoned(address.path);
      await server.listen(address);
      if (this.#isClosed) await server.close();
      this.#checkOpen();
      this.#server = server;
    } finally {
      this.#isStarting = false;
    }
  }

  /** Removes all exports, and stops the server. @throws QmpCommandError */
  async stop(): Promise<void> {
    const server = this.#running();
    // From now on nothing is added to it.
    this.#server = undefined;
    this.#stopping = this.#end(server);
    await this.#stopping;
  }

  /** The same where it runs, and for good. */
  async close(): Promise<void> {
    this.#isClosed = true;
    if (this.#server !== undefined) await this.stop();
    else await this.#stopping;
  }

  /** It ends, too, where an export cannot be closed: nobody would end it later. */
  async #end(server: NbdServer): Promise<void> {
    const served = [...this.#exports.values()].filter((one) => one.server === server);
    try {
      await settleAll(served.map(({ id }) => this.#remove(id)));
    } finally {
      await server.close();
    }
  }

  #checkOpen(): void {
    if (this.#isClosed) throw refusal('the daemon is ending: nothing can be served any more');
  }

  /** @throws QmpCommandError; what letting it into the graph throws. */
  async add(options: ExportOptions): Promise<void> {
    const server = this.#checkNew(options);
    const { id, name, node: nodeName, description, writable } = options;
    const node = nodeNamed(this.#graph, nodeName, '');
    if (writable && !node.writable) throw refusal('Cannot export read-only node as writable');
    const reserved = [`id ${id}`, `name ${name}`];
    for (const each of reserved) this.#reserved.add(each);
    const uses: BitmapUse[] = [];
    try {
      for (const one of options.bitmaps) uses.push(await this.#use(one, id));
      const root = await this.#graph.addExport({ name: this.#freeName(id), node, writable });
      try {
        // It was told to stop meanwhile.
        if (this.#server !== server) throw refusal('NBD server not running');
        server.addExport({
          name,
          device: root,
          ...(description !== undefined && { description }),
          bitmaps: Object.fromEntries(uses.map(({ bitmap }) => [bitmap.name, bitmap])),
        });
      } catch (error) {
        await root.close();
        throw error;
      }
      this.#exports.set(id, { id, name, node: nodeName, root, server, uses, closing: undefined });
    } catch (error) {
      for (const use of uses) use.release();
      throw error;
    } finally {
      for (const each of reserved) this.#reserved.delete(each);
    }
  }

  /**
   * Serves a device that is no node, such as a view.
   *
   * @returns ends that, when the requests in flight are answered
   * @throws QmpCommandError
   */
  serve(name: string, device: BlockDevice, bitmaps: Readonly<Record<string, Bitmap>>) {
    const server = this.#running();
    if (server.exportNames.includes(name) || this.#reserved.has(`name ${name}`)) {
      throw refusal(`NBD server already has export named '${name}'`);
    }
    server.addExport({ name, device, bitmaps });
    return async () => {
      // Where the server was stopped since, so was this.
      if (this.#server === server) await server.removeExport(name);
    };
  }

  /**
   * Begins to remove an export; an event tells when it is gone.
   *
   * @param isSafe not while a client uses it.
   * @throws QmpCommandError
   */
  beginRemoval(id: string, isSafe: boolean): Promise<void> {
    const exported = this.#exported(id);
    if (exported.closing !== undefined) {
      throw refusal(`Export '${id}' is already shutting down`);
    }
    if (isSafe && this.clientsOf(id) > 0) throw refusal(`export '${id}' still in use`);
    return this.#remove(id);
  }

  /** @throws QmpCommandError where the server does not run. */
  checkRunning(): void {
    this.#running();
  }

  /** The export of a name in NBD. @throws QmpCommandError */
  idOf(name: string): string {
    this.#running();
    const found = [...this.#exports.values()].find((one) => one.name === name);
    if (found === undefined) throw refusal(`Export '${name}' is not found`);
    return found.id;
  }

  #remove(id: string): Promise<void> {
    const exported = this.#exported(id);
    exported.closing ??= this.#close(exported);
    return exported.closing;
  }

  async #close({ id, name, root, server, uses }: Exported): Promise<void> {
    try {
      // Who is connected is hung up on at once, when what is in flight has been answered.
      await server.removeExport(name);
      await root.close();
    } finally {
      for (const use of uses) use.release();
      this.#exports.delete(id);
      this.#tell('BLOCK_EXPORT_DELETED', { id });
    }
  }

  #checkNew({ id, name, description, bitmaps }: ExportOptions): NbdServer {
    if (!isId(id)) throw refusal(`Invalid block export id`);
    if (this.#exports.has(id) || this.#reserved.has(`id ${id}`)) {
      throw refusal(`Block export id '${id}' is already in use`);
    }
    const server = this.#running();
    for (const [what, text] of Object.entries({ name, description })) {
      if (Buffer.byteLength(text ?? '') <= LONGEST_NAME) continue;
      throw refusal(`export ${what} '${text?.slice(0, 50)}...' too long`);
    }
    if (server.exportNames.includes(name) || this.#reserved.has(`name ${name}`)) {
      throw refusal(`NBD server already has export named '${name}'`);
    }
    // Clients ask for a bitmap by its name alone.
    const names = bitmaps.map((one) => one.name);
    const twice = names.find((one, i) => names.indexOf(one) !== i);
    if (twice !== undefined) {
      throw refusal(`export '${id}' cannot serve two bitmaps of the name '${twice}'`);
    }
    return server;
  }

  async #use({ node: nodeName, name }: { node: string; name: string }, id: string) {
    const node = nodeNamed(this.#graph, nodeName);
    await loaded(node, name);
    return node.log.bitmaps.acquire(name, `export '${id}'`);
  }

  #running(): NbdServer {
    if (this.#server === undefined) throw refusal('NBD server not running');
    return this.#server;
  }

  #exported(id: string): Exported {
    const exported = this.#exports.get(id);
    if (exported === undefined) throw refusal(`Export '${id}' is not found`);
    return exported;
  }

  /** Nodes, exports and jobs of a graph share their names, and clients may give a node and its export the same. */
  #freeName(id: string): string {
    const taken = new Set([...this.#graph.nodes, ...this.#graph.users].map(({ name }) => name));
    let name = id;
    for (let i = 1; taken.has(name); i++) name = i === 1 ? `${id}.export` : `${id}.export${i}`;
    return name;
  }
}

async function loaded(node: Node, bitmap: string): Promise<void> {
  if (!node.bitmaps.some(({ name }) => name === bitmap)) {
    throw refusal(`Bitmap '${bitmap}' is not found`);
  }
  await node.bitmap(bitmap);
}
