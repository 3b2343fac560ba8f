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
  else await endWriting(state, node, node.openAnew);
}

type OpenAnew = NonNullable<Node['openAnew']>;

async function beginWriting(state: GraphState, node: Node, openAnew: OpenAnew): Promise<void> {
  const parts = partsOf(state, node);
  for (const { to } of parts) {
    const others = state.view.to(to).filter(({ parent }) => parent !== node);
    if (others.length === 0) continue;
    const users = others.map(({ label }) => label).join(', and ');
    throw conflict(`${called(to)} is used as ${users}, so ${called(node)} cannot be written`);
  }
  let driver: Driver;
  try {
    for (const part of parts) await setWritablePart(state, part, true);
    driver = await openAnew(true);
  } catch (error) {
    for (const part of parts) await setWritablePart(state, part, false).catch(() => {});
    throw error;
  }
  const before = node.device;
  const kept = node.log.inMemory();
  node.beginAnew(driver, true, kept);
  // It has the same bytes below it as the new one, for whoever reads them still.
  await before.close();
}

async function endWriting(state: GraphState, node: Node, openAnew: OpenAnew): Promise<void> {
  const kept = node.log.inMemory();
  await node.device.close();
  for (const part of partsOf(state, node)) await setWritablePart(state, part, false);
  node.beginAnew(await openAnew(false), false, kept);
}

async function setWritablePart(
  state: GraphState,
  { to, role }: Edge,
  writable: boolean,
): Promise<void> {
  if (!writable) to.endGrowth();
  await setWritable(state, to, writable);
  if (writable && role !== 'disk') to.letGrow();
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
  if (!node.grows && node.log.bitmaps.isWatched) {
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
