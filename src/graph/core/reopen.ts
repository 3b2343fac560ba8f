import type { Driver } from '../../block/index.js';
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
 * then it is open for reading only.
 */
export async function setWritable(state: GraphState, node: Node, writable: boolean): Promise<void> {
  if (node.writable === writable) return;
  checkBitmaps(node);
  if (node.driver.setWritable !== undefined) {
    await node.driver.setWritable(writable);
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
  // It has the same bytes below it as the new one, for whoever reads them still.
  await before.close();
}

async function endWriting(node: Node, openAnew: OpenAnew): Promise<void> {
  const kept = node.log.inMemory();
  await node.device.close();
  await node.endsWriting?.();
  node.endsWriting = undefined;
  node.beginAnew(await openAnew(false), false, kept);
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
  const own = ['image', 'data file', 'disk'];
  return state.view.from(node).filter(({ role }) => own.includes(role));
}

/** Makes the disk of a node that is written larger: nothing may be in flight above it. */
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
    const kept = node.log.inMemory();
    await node.device.close();
    node.beginAnew(await node.openAnew(true), true, kept);
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
