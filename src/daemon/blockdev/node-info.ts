import { statSync } from 'node:fs';
import type { Node } from '../../graph/index.js';
import type { Control } from '../core/index.js';

const SECTOR = 512;

/** What is told of a node (BlockDeviceInfo). */
export function nodeInfo(control: Control, node: Node) {
  const { device } = node;
  const file = fileNameOf(control, node);
  const { backingFile } = device.details ?? {};
  return {
    ...LIMITLESS,
    'node-name': node.name,
    drv: driverOf(control, node),
    file,
    ro: !node.writable,
    encrypted: false,
    cache: { 'no-flush': false, direct: false, writeback: true },
    detect_zeroes: 'off' as const,
    write_threshold: control.thresholds.of(node.name),
    backing_file_depth: depthOf(control, node),
    ...(backingFile !== undefined && { backing_file: backingFile }),
    image: imageInfo(control, node, file),
    ...(node.bitmaps.length > 0 && { 'dirty-bitmaps': node.bitmaps.map(bitmapInfo).reverse() }),
  };
}

/** QEMU's old way of throttling, which is done by filters now. */
const LIMITLESS = { bps: 0, bps_rd: 0, bps_wr: 0, iops: 0, iops_rd: 0, iops_wr: 0 };

/** As the client has called it. */
function driverOf({ drivers }: Control, { name, driverName }: Node): string {
  return drivers.get(name) ?? driverName;
}

function imageInfo(control: Control, node: Node, filename: string) {
  const { details } = node.device;
  const actualSize = sizeOnDisk(filename);
  const { backingFile, backingFormat } = details ?? {};
  return {
    filename,
    format: driverOf(control, node),
    'virtual-size': node.device.end,
    'dirty-flag': false,
    ...(actualSize !== undefined && { 'actual-size': actualSize }),
    ...(details !== undefined && {
      'cluster-size': details.clusterSize,
      'format-specific': { type: details.format, data: formatData(details) },
    }),
    ...(backingFile !== undefined && { 'backing-filename': backingFile }),
    ...(backingFormat !== undefined && { 'backing-filename-format': backingFormat }),
  };
}

function formatData({
  version,
  refcountBits,
  compression,
  features,
}: NonNullable<Node['device']['details']>) {
  const has = (name: string) => features.includes(name);
  return {
    compat: version === 2 ? '0.10' : '1.1',
    'compression-type': compression === 'zstd' ? 'zstd' : 'zlib',
    'refcount-bits': refcountBits,
    ...(version > 2 && {
      'lazy-refcounts': has('lazy refcounts'),
      corrupt: has('corrupt bit'),
      'extended-l2': has('extended L2 entries'),
    }),
  };
}

function bitmapInfo(info: Node['bitmaps'][number]) {
  const { name, granularity, dirtyBytes, recording, busy, persistent, inconsistent } = info;
  // Whole granules; what is stored and not loaded counts as nothing until somebody asks for its bits.
  const count = Math.ceil((dirtyBytes ?? 0) / granularity) * granularity;
  return {
    ...{ name, granularity, count, recording, busy, persistent },
    ...(inconsistent && { inconsistent }),
  };
}

/** The file that a disk is in, or what else its driver calls it. */
export function fileNameOf(control: Control, node: Node): string {
  const child = childOf(control, node, 'file');
  return child === undefined ? node.device.name : fileNameOf(control, child);
}

function depthOf(control: Control, node: Node): number {
  const child = childOf(control, node, 'backing');
  return child === undefined ? 0 : 1 + depthOf(control, child);
}

function childOf({ graph }: Control, node: Node, key: string): Node | undefined {
  const edge = graph.edges.find(({ parent, child }) => parent === node.name && child === key);
  return edge && graph.nodes.find(({ name }) => name === edge.node);
}

function sizeOnDisk(path: string): number | undefined {
  try {
    const stat = statSync(path);
    return stat.isFile() ? stat.blocks * SECTOR : undefined;
  } catch {
    return undefined;
  }
}
