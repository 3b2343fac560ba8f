import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import type { DeviceRequestMessage } from '#dist/block/index.js';
import { Graph } from '#dist/graph/index.js';
import { Job, type JobMessage } from '#dist/job/index.js';
import {
  NbdClient,
  type NbdClientMessage,
  type NbdRequestMessage,
  NbdServer,
} from '#dist/nbd/index.js';
import { fakeDevice } from '../../support/fake-device.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const SIZE = 1 << 20;
const folder = temporaryFolder();
const listening: (() => void)[] = [];

/** All that a channel tells from now on. */
function heard<Message>(name: string): Message[] {
  const messages: Message[] = [];
  const listener = (message: unknown) => void messages.push(message as Message);
  subscribe(name, listener);
  listening.push(() => unsubscribe(name, listener));
  return messages;
}

afterEach(() => {
  for (const stop of listening.splice(0)) stop();
});

describe('lacuna:device:request tells', () => {
  it('every request of a device with its range and duration', async () => {
    const device = fakeDevice(SIZE);
    const messages = heard<DeviceRequestMessage>('lacuna:device:request');
    await device.write(512, new Uint8Array(1024));
    await device.read(0, new Uint8Array(2048));
    await device.zero(4096, 4096);
    await device.flush();
    await device.extents(0, SIZE);
    expect(messages.map(({ operation, offset, length }) => [operation, offset, length])).toEqual([
      ['write', 512, 1024],
      ['read', 0, 2048],
      ['zero', 4096, 4096],
      ...(device.capabilities.flush ? [['flush', 0, 0]] : []),
      ['status', 0, SIZE],
    ]);
    for (const message of messages) {
      expect(message.device).toBe(device);
      expect(message.node).toBeUndefined();
      expect(message.durationMs).toBeGreaterThanOrEqual(0);
      expect(message).not.toHaveProperty('error');
    }
  });

  it('why a request has failed', async () => {
    const failure = new Error('broken');
    const device = fakeDevice(SIZE, { read: () => Promise.reject(failure) });
    const messages = heard<DeviceRequestMessage>('lacuna:device:request');
    await expect(device.read(0, new Uint8Array(512))).rejects.toBe(failure);
    expect(messages).toMatchObject([{ operation: 'read', error: failure }]);
  });

  it('no request that was misused, and none when nobody listens any more', async () => {
    const device = fakeDevice(SIZE);
    const messages = heard<DeviceRequestMessage>('lacuna:device:request');
    await expect(device.read(SIZE, new Uint8Array(1))).rejects.toThrow(RangeError);
    for (const stop of listening.splice(0)) stop();
    await device.read(0, new Uint8Array(512));
    expect(messages).toEqual([]);
  });

  it('the nodes of a graph by name, each that a request comes to', async () => {
    await using graph = new Graph();
    await graph.add({ 'node-name': 'base', driver: 'null', size: SIZE });
    await graph.add({
      'node-name': 'slow',
      driver: 'throttle',
      file: 'base',
      'bytes-per-second': 1e12,
    });
    const disk = await graph.addExport({ name: 'guest', node: 'slow' });
    const messages = heard<DeviceRequestMessage>('lacuna:device:request');
    await disk.read(0, new Uint8Array(512));
    expect(messages.map(({ node }) => node)).toEqual(['base', 'slow']);
  });
});

describe('lacuna:nbd-server tells', () => {
  it('clients that come and go, and what they ask', async () => {
    const device = fakeDevice(SIZE);
    const clients = heard<NbdClientMessage>('lacuna:nbd-server:client');
    const requests = heard<NbdRequestMessage>('lacuna:nbd-server:request');
    await using server = new NbdServer({ exports: [{ name: 'disk', device }] });
    const address = await server.listen({
      type: 'unix',
      path: join(folder, 'nbd.sock'),
    });
    const client = await NbdClient.connect({ server: address, export: 'disk' });
    await client.write(0, new Uint8Array(4096));
    await client.read(4096, new Uint8Array(512));
    await client.close();
    await expect.poll(() => clients.length).toBe(2);
    const [{ client: number }] = clients;
    expect(clients).toMatchObject([
      { client: number, event: 'entered', export: 'disk' },
      { client: number, event: 'left', export: 'disk' },
    ]);
    expect(requests).toMatchObject([
      { client: number, export: 'disk', operation: 'write', offset: 0, length: 4096 },
      { client: number, export: 'disk', operation: 'read', offset: 4096, length: 512 },
    ]);
    for (const request of requests) {
      expect(request.device).toBe(device);
      expect(request).not.toHaveProperty('errno');
    }
  });

  it('with which error a client was answered', async () => {
    const device = fakeDevice(SIZE, { read: () => Promise.reject(new Error('broken')) });
    const requests = heard<NbdRequestMessage>('lacuna:nbd-server:request');
    await using server = new NbdServer({ exports: [{ name: '', device, readOnly: true }] });
    const address = await server.listen({
      type: 'unix',
      path: join(folder, 'broken.sock'),
    });
    const client = await NbdClient.connect({ server: address, export: '' });
    await expect(client.read(0, new Uint8Array(512))).rejects.toThrow();
    await client.close();
    expect(requests).toMatchObject([{ operation: 'read', errno: 'EIO' }]);
  });
});

describe('lacuna:job tells', () => {
  const work = { what: 'a test', counted: () => ({ totalBytes: 0, doneBytes: 0 }) };

  it('how a job begins, changes and ends', async () => {
    const messages = heard<JobMessage>('lacuna:job');
    const job = new Job({
      ...work,
      work: async (control) => {
        await control.next();
        control.becomeReady();
      },
    });
    job.pause();
    job.resume();
    await job;
    expect(messages.map(({ event }) => event)).toEqual([
      'begun',
      'paused',
      'resumed',
      'ready',
      'done',
    ]);
    for (const message of messages) expect(message).toMatchObject({ job, what: 'a test' });
  });

  it('why a job has failed, and that one was stopped', async () => {
    const messages = heard<JobMessage>('lacuna:job');
    const failure = new Error('broken');
    const failed = new Job({ ...work, work: () => Promise.reject(failure) });
    await expect(failed).rejects.toBe(failure);
    const stopped = new Job({ ...work, work: (control) => control.waitAbout(failure) });
    stopped.stop();
    await expect(stopped).rejects.toThrow();
    const ends = messages.filter(({ event }) => event !== 'begun');
    expect(ends).toMatchObject([
      { job: failed, event: 'failed', error: failure },
      { job: stopped, event: 'paused', error: failure },
      { job: stopped, event: 'stopped' },
    ]);
  });
});
