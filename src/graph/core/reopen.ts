import { type Driver, passThrough } from '../../block/index.js';
import { LacunaError } from '../../errors/index.js';
import type { Edge } from './edge.js';
import { called, conflict } from './failures.js';
import type { Node } from './node.js';
import type { GraphState } from './state.js';

/**
 * Opens a node for writing that is open for reading only, or ends that: the node stays the one that it is for all who use it.
 * Its locks change with it, and are never given up in between.
 *
 * To end it, nothing may be in flight above the node, and what was written is made durable first.
 *
 * @throws LacunaError ERR_GRAPH_CONFLICT where it cannot be; ERR_DEVICE_LOCKED, ERR_DEVICE_OPEN and what opening an image throws:
 * then it is open for reading only, or, where an image that was written cannot be opened anew, refuses every request.
 */
export async function setWritable(state: GraphState, node: Node, writable: boolean): Promise<void> {
  if (node.writable === writable) return;
  checkBitmaps(node);
  if (node.driver.setWritable !== undefined) {
    // What was opened for writing keeps its descriptor: the node refuses writes.
    if (writable || !node.wasAddedWritable) await node.driver.setWritable(writable);
    node.beginAnew(node.driver, writable);
    return;
  }
  if (node.openAnew === undefined) throw cannot(node);
  if (writable) await beginWriting(state, node, node.openAnew);
  else await endWriting(node, node.openAnew);
}

type OpenAnew = NonNullable<Node['openAnew']>;

async function beginWriting(state: GraphState, node: Node, openAnew: OpenAnew): Promise<void> {
  const parts = partsOf(state, node);
  for (const { to, role } of parts) {
    const others = state.view.to(to).filter(({ parent }) => parent !== node);
    if (others.length > 0) {
      const users = others.map(({ label }) => label).join(', and ');
      throw conflict(`${called(to)} is used as ${users}, so ${called(node)} cannot be written`);
    }
    if (role !== 'disk') checkMayGrow(to);
  }
  const begun: Edge[] = [];
  let driver: Driver;
  try {
    for (const part of parts) {
      if (!part.to.writable) begun.push(part);
      await setWritable(state, part.to, true);
      await part.to.driver.lock?.change('write');
      if (part.role !== 'disk') part.to.letGrow();
    }
    driver = await openAnew(true);
  } catch (error) {
    await endParts(state, parts, begun).catch(() => {});
    throw error;
  }
  const before = node.device;
  const kept = node.log.inMemory();
  node.beginAnew(driver, true, kept);
  node.endsWriting = () => endParts(state, parts, begun);
  // Requests still in flight on it read the same bytes as on the new one.
  await before.close();
}

async function endWriting(node: Node, openAnew: OpenAnew): Promise<void> {
  try {
    await closeAndOpen(node, false, async () => {
      await endBelow(node);
      return openAnew(false);
    });
  } catch (error) {
    await endBelow(node).catch(() => {});
    throw error;
  }
}

async function endBelow(node: Node): Promise<void> {
  const { endsWriting } = node;
  node.endsWriting = undefined;
  await endsWriting?.();
}

/**
 * Opens a node anew that must be closed first: an image is only complete in its file once it is closed.
 *
 * Where that fails the node stays, and every request to it says so. It works again when a later attempt to open it anew succeeds.
 */
async function closeAndOpen(node: Node, writable: boolean, open: () => Promise<Driver>) {
  const kept = node.log.inMemory();
  let driver: Driver;
  try {
    await node.device.close();
    driver = await open();
  } catch (error) {
    node.beginAnew(closedDriver(node, error), writable, kept);
    throw error;
  }
  node.beginAnew(driver, writable, kept);
}

/** Stands for a driver that is closed, and could not be opened anew. */
function closedDriver(node: Node, cause: unknown): Driver {
  const { device } = node;
  const why = cause instanceof Error ? cause.message : String(cause);
  const message = `${called(node)} was closed to be opened anew, which failed: ${why}; remove the node, and add it again`;
  const refuse = async () => {
    throw new LacunaError('ERR_DEVICE_CLOSED', message, { device: device.name });
  };
  return passThrough(device, refuse, undefined, async () => {});
}

/** Those that were open for writing before stay so. */
async function endParts(
  state: GraphState,
  parts: readonly Edge[],
  begun: readonly Edge[],
): Promise<void> {
  for (const part of parts) {
    part.to.endGrowth();
    if (begun.includes(part)) await setWritable(state, part.to, false);
  }
}

/**
 * The file of an image that is written is as long as that makes it, so it cannot have bitmaps.
 *
 * @throws LacunaError ERR_GRAPH_CONFLICT
 */
export function checkMayGrow(node: Node): void {
  if (node.grows || (node.bitmaps.length === 0 && !node.hasBitmapFile)) return;
  const message = `${called(node)} has bitmaps, which the file of an image that is written cannot have: remove them first`;
  throw conflict(message);
}

/** What holds its own bytes. */
function partsOf(state: GraphState, node: Node): Edge[] {
  const own = ['image', 'data file', 'part', 'disk'];
  return state.view.from(node).filter(({ role }) => own.includes(role));
}

/**
 * Makes the disk of a node that is written larger: nothing may be in flight above it.
 *
 * @throws LacunaError ERR_GRAPH_CONFLICT where it cannot be; what growing the file and opening an image throw.
 */
export async function growNode(node: Node, size: number): Promise<void> {
  if (node.size >= size) return;
  checkBitmaps(node);
  const { driver } = node;
  if (driver.grow === undefined) {
    const message = `${called(node)} has ${node.size} bytes and needs ${size}, and cannot be made larger here: make it larger first`;
    throw conflict(message);
  }
  await driver.grow(size);
  if (driver.size < size && node.openAnew !== undefined) {
    const { openAnew } = node;
    await closeAndOpen(node, true, () => openAnew(true));
  } else node.beginAnew(driver, true);
}

function checkBitmaps(node: Node): void {
  if (node.hasBitmapFile) {
    const message = `${called(node)} has a file of bitmaps, which stays as it was opened: add the node with writable: true, and as large as it must be`;
    throw conflict(message);
  }
  if (!node.grows && node.log.bitmaps.watches.size > 0) {
    throw conflict(`a populate is told what is written to ${called(node)}: wait for its end`);
  }
  const busy = node.bitmaps.find((bitmap) => bitmap.busy);
  if (busy === undefined) return;
  throw conflict(`bitmap '${busy.name}' of ${called(node)} is in use: end that first`);
}

function cannot(node: Node): Error {
  const message = `${called(node)} is open for reading only: add it with writable: true, since it cannot be opened anew`;
  return conflict(message);
}
