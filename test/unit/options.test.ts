/**
 * What callers hand in: every exported function refuses what it does not know, and says what it misses. The table
 * below has each of them; one that is exported and not in it fails the test.
 */
import * as lacuna from 'lacuna';
import * as bitmap from 'lacuna/bitmap';
import * as daemon from 'lacuna/daemon';
import * as errors from 'lacuna/errors';
import * as graph from 'lacuna/graph';
import * as nbd from 'lacuna/nbd';
import * as qemu from 'lacuna/qemu';
import * as qmp from 'lacuna/qmp';
import * as testing from 'lacuna/testing';
import { describe, expect, it } from 'vitest';
import { fakeDevice } from '../support/fake-device.js';

const MODULES = { lacuna, bitmap, daemon, errors, graph, nbd, qemu, qmp, testing };
const SIZE = 4096;
const GOOD = { source: { driver: 'null', size: SIZE }, target: { driver: 'null', size: SIZE } };
const ADDRESS = { type: 'unix', path: '/nowhere/nbd.sock' };
const EXPORTS = { exports: [{ name: '', device: fakeDevice(SIZE) }] };
const WORK = {
  what: 'a test',
  work: async () => {},
  counted: () => ({ totalBytes: 0, doneBytes: 0 }),
};

type Call = (options: object) => unknown;

/** How each is called with options beside what it needs; null for what takes no options. */
const WITH_OPTIONS: Record<string, Call | null> = {
  copy: (options) => lacuna.copy({ ...GOOD, ...options } as never),
  plan: (options) => lacuna.plan({ source: GOOD.source, ...options } as never),
  compare: (options) => lacuna.compare({ a: GOOD.source, b: GOOD.target, ...options } as never),
  digest: (options) => lacuna.digest(GOOD.source as never, options),
  populate: (options) => lacuna.populate({ sources: [], targets: [], ...options }),
  commit: (options) => lacuna.commit({ top: '/nowhere/top.qcow2', ...options }),
  rebase: (options) => lacuna.rebase({ image: '/nowhere/a.qcow2', backing: null, ...options }),
  readExtents: (options) => lacuna.readExtents('/nowhere', {} as never, options),
  copyToStream: (options) => lacuna.copyToStream('/nowhere', process.stdout, options),
  copyFromStream: (options) => lacuna.copyFromStream(process.stdin, '/nowhere', options),
  openDevice: (options) => lacuna.openDevice('/nowhere', options),
  openBitmaps: (options) => lacuna.openBitmaps('/nowhere.qcow2', options),
  checkQcow2: (options) => lacuna.checkQcow2('/nowhere.qcow2', options),
  createRawFile: (options) => lacuna.createRawFile('/nowhere/a.raw', SIZE, options),
  createQcow2: (options) => lacuna.createQcow2('/nowhere/a.qcow2', { size: SIZE, ...options }),
  exportBitmap: (options) =>
    lacuna.exportBitmap('/nowhere', { bitmap: null as never, name: 'b', ...options }),
  createServer: (options) => lacuna.createServer({ ...EXPORTS, ...options }),
  Device: (options) => new lacuna.Device(driver(), options),
  NbdServer: (options) => new nbd.NbdServer({ ...EXPORTS, ...options }),
  NbdClient: (options) => nbd.NbdClient.connect({ server: ADDRESS as never, ...options }),
  ReconnectingClient: (options) =>
    nbd.ReconnectingClient.connect({
      server: ADDRESS as never,
      reconnectDelayMs: 1,
      ...options,
    }),
  connectPatiently: (options) => nbd.connectPatiently({ server: ADDRESS as never, ...options }, 0),
  parseNbdUri: (options) => nbd.parseNbdUri('nbd://localhost', options),
  formatNbdUri: (options) => nbd.formatNbdUri({ ...ADDRESS, ...options } as never),
  backupMachine: (options) =>
    qemu.backupMachine({} as never, {} as never, { machine: 'web', ...options }),
  recoverMachine: (options) =>
    qemu.recoverMachine({} as never, {} as never, { machine: 'web', ...options }),
  planMachine: (options) =>
    qemu.planMachine({} as never, {} as never, { machine: 'web', ...options }),
  Machine: (options) =>
    qemu.Machine.connect({ monitor: { path: '/nowhere' }, folder: '/nowhere', ...options }),
  LibvirtMachine: (options) =>
    qemu.LibvirtMachine.find({ domain: 'nobody', folder: '/nowhere', ...options }),
  Monitor: (options) => qmp.Monitor.connect({ path: '/nowhere' }, options),
  QmpServer: (options) =>
    new qmp.QmpServer({
      commands: {},
      version: { major: 10, minor: 0, micro: 0, package: '' },
      ...options,
    }),
  GuestAgent: (options) => qmp.GuestAgent.connect({ path: '/nowhere' }, options),
  Arena: (options) => bitmap.Arena.create(options),
  Bitmap: (options) => new bitmap.Bitmap({ size: SIZE, granularity: SIZE, ...options }),
  BitmapFile: (options) => bitmap.BitmapFile.open('/nowhere', { size: SIZE, ...options }),
  DirtyBitmaps: (options) => new bitmap.DirtyBitmaps({ size: SIZE, ...options }),
  deviceContract: (options) =>
    testing.deviceContract({ open: async () => ({}) as never, ...options } as never),
  bitmapContract: (options) =>
    testing.bitmapContract({ create: () => ({}) as never, ...options } as never),
  Job: (options) => new lacuna.Job({ ...WORK, ...options } as never),
  RecordingDevice: null,
  resizeImage: (options) => lacuna.resizeImage('/nowhere/a.qcow2', SIZE, options),
  createSnapshot: (options) => lacuna.createSnapshot('/nowhere/a.qcow2', 's', options),
  applySnapshot: (options) => lacuna.applySnapshot('/nowhere/a.qcow2', 's', options),
  deleteSnapshot: (options) => lacuna.deleteSnapshot('/nowhere/a.qcow2', 's', options),
  amendQcow2: (options) => lacuna.amendQcow2('/nowhere/a.qcow2', options),
  resizeQcow2: null,
  cleanTarget: null,
};

/** How each is called without anything that it needs; what needs nothing, or is made by others, is in the list below. */
const WITHOUT: Record<string, () => unknown> = {
  Device: () => new (lacuna.Device as never as new () => unknown)(),
  NbdServer: () => new (nbd.NbdServer as never as new () => unknown)(),
  NbdClient: () => (nbd.NbdClient.connect as never as () => unknown)(),
  ReconnectingClient: () => (nbd.ReconnectingClient.connect as never as () => unknown)(),
  Machine: () => (qemu.Machine.connect as never as () => unknown)(),
  LibvirtMachine: () => (qemu.LibvirtMachine.find as never as () => unknown)(),
  Monitor: () => (qmp.Monitor.connect as never as () => unknown)(),
  QmpServer: () => new (qmp.QmpServer as never as new () => unknown)(),
  GuestAgent: () => (qmp.GuestAgent.connect as never as () => unknown)(),
  Arena: () => (bitmap.Arena.attach as never as () => unknown)(),
  Bitmap: () => new (bitmap.Bitmap as never as new () => unknown)(),
  BitmapFile: () => (bitmap.BitmapFile.open as never as () => unknown)(),
  Job: () => new (lacuna.Job as never as new () => unknown)(),
  RecordingDevice: () => new (graph.RecordingDevice as never as new () => unknown)(),
  DirtyBitmaps: () => new (bitmap.DirtyBitmaps as never as new () => unknown)(),
};

/** Made by other calls, or so simple that there is nothing to leave out. */
const EXEMPT = new Set([
  ...['CopyJob', 'StreamJob', 'BitmapImage', 'DirtyBitmap', 'ExtentList', 'Random', 'LacunaError'],
  ...['isDirtyContext', 'readsAsZero', 'abortedError', 'isAborted', 'throwIfAborted'],
  ...[
    'Graph',
    'GraphBackup',
    'GraphJob',
    'LiveJob',
    'CommitJob',
    'MirrorJob',
    'BackupDisk',
    'fromWire',
    'toWire',
    'withLog',
    'Daemon',
    'EventStream',
    'QmpCommandError',
    'QmpSchema',
    'BackupSession',
    'SessionDisk',
  ],
]);

const exported = Object.values(MODULES).flatMap((module) =>
  Object.entries(module).filter(([, value]) => typeof value === 'function'),
);
const functions = new Map(exported as [string, (...args: unknown[]) => unknown][]);

function driver() {
  const limits = {
    minimum: 1,
    preferred: SIZE,
    maximum: SIZE,
    maximumZero: SIZE,
    zeroAlignment: 1,
    discardAlignment: 1,
  };
  const close = async () => {};
  const read = async () => {};
  return { name: 'mine', size: SIZE, limits, capabilities: {}, read, close };
}

/** What a call throws, at once or later. */
async function failureOf(call: () => unknown): Promise<unknown> {
  try {
    await call();
  } catch (error) {
    return error;
  }
  return undefined;
}

describe('every exported function', () => {
  it('is in the table', () => {
    const listed = new Set([...Object.keys(WITH_OPTIONS), ...EXEMPT]);
    expect([...functions.keys()].filter((name) => !listed.has(name))).toEqual([]);
    expect([...listed].filter((name) => !functions.has(name))).toEqual([]);
  });

  const callable = Object.entries(WITH_OPTIONS).filter((entry) => entry[1] !== null);
  it.each(callable as [string, Call][])(
    '%s refuses an option that it does not know',
    async (_, call) => {
      const failure = await failureOf(() => call({ misspelt: 1 }));
      expect(failure).toBeInstanceOf(TypeError);
      expect(String(failure)).toMatch(/has no option "misspelt": did you mean "\w+"\?/);
    },
  );

  it.each(Object.keys(WITH_OPTIONS))('%s says what it needs', async (name) => {
    const call = WITHOUT[name] ?? functions.get(name)!;
    const failure = await failureOf(() => call());
    expect(failure).toBeInstanceOf(TypeError);
    expect(String(failure)).toMatch(/ needs (an? )?\w+: /);
    expect(String(failure)).not.toContain('undefined');
  });
});

describe('an option', () => {
  it.each([
    ['bitmpa', 'bitmap'],
    ['Signal', 'signal'],
    ['on_read_error', 'onReadError'],
    ['targetFomat', 'targetFormat'],
    ['constructor', 'compress'],
    ['__proto', 'retry'],
  ])('%s is told to be near to %s', (wrong, _near) => {
    const call = () => lacuna.copy({ ...GOOD, [wrong]: undefined } as never);
    expect(call).toThrow(TypeError);
    expect(call).toThrow(`copy has no option "${wrong}": did you mean "`);
  });

  it('is told what it is near to', () => {
    const call = () => lacuna.copy({ ...GOOD, bitmpa: 1 } as never);
    expect(call).toThrow('copy has no option "bitmpa": did you mean "bitmap"?');
  });

  it('that is missing is told with what it can be', async () => {
    const call = lacuna.copy as unknown as (options?: unknown) => unknown;
    expect(() => call()).toThrow(
      'copy needs a source: a path, an NBD URI, a description, or an open Device',
    );
    expect(() => call({ source: 'a' })).toThrow('copy needs a target: a path');
    expect(() => call('a.raw')).toThrow('copy takes its options in an object, not "a.raw"');
    expect(() => call([])).toThrow('copy takes its options in an object, not a list');
  });

  it.each([
    ['signal', {}, 'copy: signal must be an AbortSignal, not an object'],
    ['verify', 'no', 'copy: verify must be true or false, not "no"'],
    ['retry', { attemps: 1 }, 'copy: retry has no option "attemps": did you mean "attempts"?'],
    [
      'image',
      { clustersize: 1 },
      'copy: image has no option "clustersize": did you mean "clusterSize"?',
    ],
    ['image', { backing: { filename: 'a' } }, 'copy: image.backing needs a format: '],
  ])('%s is refused where it is %j', (key, value, message) => {
    expect(() => lacuna.copy({ ...GOOD, [key]: value } as never)).toThrow(message);
  });

  it('that is no function where one is called is refused', () => {
    const options = { ...EXPORTS, onRefused: 1 } as never;
    expect(() => new nbd.NbdServer(options)).toThrow(
      'NbdServer: onRefused must be a function, not 1',
    );
  });

  it('inside another one, of a server or a client, is checked', async () => {
    const server = (options: object) => () =>
      new nbd.NbdServer({ ...EXPORTS, ...options } as never);
    expect(server({ limits: { maxRequest: 1 } })).toThrow('did you mean "maxRequests"?');
    expect(server({ exports: [{ nam: '' }] })).toThrow('exports[0] has no option "nam"');
    const served = (exports: object) => lacuna.createServer({ exports } as never);
    await expect(served([{ name: '' }])).rejects.toThrow('createServer: exports[0] needs a device');
    await expect(served([null])).rejects.toThrow('createServer: exports[0]');
    expect(server({ tls: { type: 'psk', 'psk-fil': '' } })).toThrow('did you mean "psk-file"?');
    const to = (address: object) => nbd.NbdClient.connect({ server: address as never });
    await expect(to({ type: 'unix', pth: '' })).rejects.toThrow('did you mean "path"?');
    await expect(to({ type: 'tcp' })).rejects.toThrow('needs an address: { type:');
  });

  it('that names a format by something else than text is refused', async () => {
    const format = { targetFormat: 'raw' } as never;
    expect(() => lacuna.cleanTarget('/nowhere', format)).toThrow('a format must be a name');
    await expect(lacuna.openDevice('/nowhere', { format })).rejects.toThrow(TypeError);
  });

  it("of a driver of one's own is checked", () => {
    const make = (parts: object) => () => new lacuna.Device({ ...driver(), ...parts } as never);
    expect(make({ capabilities: { fastzero: true } })).toThrow(
      'mine: capabilities has no option "fastzero": did you mean "fastZero"?',
    );
    expect(make({ limits: { ...driver().limits, maximumzero: 1 } })).toThrow('"maximumZero"');
    expect(make({ limits: undefined })).toThrow('mine: limits needs a minimum: ');
  });

  it('of a command of dirty bitmaps is checked', () => {
    const bitmaps = new bitmap.DirtyBitmaps({ size: SIZE });
    expect(() => bitmaps.add({ name: 'a', granularty: 512 } as never)).toThrow('"granularity"');
    expect(() => bitmaps.add(undefined as never)).toThrow('add needs a name: ');
    const act = (action: object) => () => bitmaps.transaction([action as never]);
    expect(act({ type: 'add', name: 'a', disabeld: true })).toThrow('did you mean "disabled"?');
    expect(act({ type: 'clear' })).toThrow('needs a name: ');
    expect(act({ type: 'merge', target: 'a', source: [] })).toThrow('did you mean "sources"?');
  });

  it('of a request is checked', async () => {
    const device = fakeDevice(SIZE);
    const bytes = new Uint8Array(SIZE);
    const calls: [(options: never) => Promise<unknown>, string][] = [
      [(options) => device.read(0, bytes, options), 'signal'],
      [(options) => device.write(0, bytes, options), 'fua'],
      [(options) => device.zero(0, SIZE, options), 'unmap'],
      [(options) => device.discard(0, SIZE, options), 'signal'],
      [(options) => device.flush(options), 'signal'],
      [(options) => device.extents(0, SIZE, options), 'contexts'],
    ];
    for (const [call, near] of calls) {
      const wrong = { [`${near}x`]: undefined } as never;
      await expect(call(wrong)).rejects.toThrow(`did you mean "${near}"?`);
      await expect(call({ signal: {} } as never)).rejects.toThrow('must be an AbortSignal');
    }
  });

  it('of an event is checked', async () => {
    const job = lacuna.copy(GOOD as never);
    expect(() => job.on('finished' as never, () => {})).toThrow('a copy has no event "finished"');
    await job;
  });
});
