import type {
  BlockDevice,
  ChildRole,
  ExtentsOptions,
  RequestOptions,
  WriteOptions,
  ZeroOptions,
} from '../../block/index.js';
import type { ExtentList } from '../../extent/index.js';
import type { Entrance } from './drain.js';
import { called, type Named } from './failures.js';
import type { Node } from './node.js';

/** As what a node is used: `root` by an export or a job; for its use by another node see ChildRole. */
export type EdgeRole = ChildRole | 'root';

/**
 * The use of a node by another one, or by an export or a job. It is the device that the user holds, and asks for the node
 * once for each request: those in flight end on the node that was there when they began. It has no gate and counts nothing.
 *
 * It neither tells where bytes lie nor copies inside the system: both go around what stands in between, and what they say is
 * not true any more when the node is another one.
 */
export class Edge implements BlockDevice {
  readonly parent: Named;
  /** The key under which the parent's description has the node, `root` for an export or a job. */
  readonly key: string;
  readonly role: EdgeRole;
  /** Only a change assigns it. */
  to: Node;
  /** Its parent is used by nobody yet, and does not count: others may write what it leads to. Only a change ends this. */
  isPending: boolean;
  readonly limits: BlockDevice['limits'];
  /** The job that moves what it leads to, as a person would name it; only that job writes there then. */
  movedBy: string | undefined;

  constructor(
    parent: Named,
    { key, role }: { key: string; role: EdgeRole },
    to: Node,
    isPending = false,
  ) {
    this.isPending = isPending;
    this.parent = parent;
    this.key = key;
    this.role = role;
    this.to = to;
    // The node's own device does the aligning, whichever node that is.
    this.limits = { ...to.device.limits, minimum: 1, statusMinimum: 1 };
  }

  /** `file of node 'disk'` */
  get label(): string {
    return this.role === 'root' ? called(this.parent) : `${this.key} of ${called(this.parent)}`;
  }

  get name(): string {
    return this.to.device.name;
  }

  get path() {
    return this.to.device.path!;
  }

  get size(): number {
    return this.to.device.size;
  }

  get end(): number {
    return this.to.device.end;
  }

  /** Others may write the node too: what it was known to hold says nothing. */
  get capabilities() {
    return { ...this.to.device.capabilities, knownZero: false, multiConnection: false };
  }

  get details() {
    return this.to.device.details;
  }

  get warnings() {
    return this.to.device.warnings;
  }

  get missing() {
    return this.to.device.missing;
  }

  read(offset: number, target: Uint8Array, options?: RequestOptions): Promise<void> {
    return this.to.device.read(offset, target, options);
  }

  write(offset: number, source: Uint8Array, options?: WriteOptions): Promise<void> {
    return this.to.device.write(offset, source, options);
  }

  /** @internal */
  writeNow(offset: number, source: Uint8Array): boolean {
    const { device } = this.to;
    return device.limits.minimum <= source.byteLength && device.writeNow(offset, source);
  }

  zero(offset: number, length: number, options?: ZeroOptions): Promise<void> {
    return this.to.device.zero(offset, length, options);
  }

  /** Where the node cannot be told, nothing is done: its user may have had another one before that could. */
  async discard(offset: number, length: number, options?: RequestOptions): Promise<void> {
    const { device } = this.to;
    if (device.capabilities.discard) await device.discard(offset, length, options);
  }

  flush(options?: RequestOptions): Promise<void> {
    return this.to.device.flush(options);
  }

  extents(offset: number, length: number, options?: ExtentsOptions): Promise<ExtentList[]> {
    return this.to.device.extents(offset, length, options);
  }

  someExtents(offset: number, length: number, options?: ExtentsOptions): Promise<ExtentList[]> {
    return this.to.device.someExtents(offset, length, options);
  }

  /** It is for what is at its end now, and for nothing that comes to lie above that. */
  get isPinned(): boolean {
    return (this.parent as Partial<Entrance>).isPinned === true;
  }

  /** @internal */
  get snapshot() {
    return this.to.driver.snapshot;
  }

  /** @internal */
  writesAgain(): void {
    this.to.device.writesAgain();
  }

  /** @internal */
  get forgotten() {
    return this.to.device.forgotten;
  }

  changedElsewhere(): void {}

  /** The node belongs to the graph. */
  async close(): Promise<void> {}

  async [Symbol.asyncDispose](): Promise<void> {}
}
