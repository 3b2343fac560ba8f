import { describe, expect, it } from 'vitest';
import { checkDescription, type ImageFormat, parseDescription } from '#dist/block/index.js';

const UNIX = { type: 'unix', path: '/run/nbd' };

describe('parseDescription', () => {
  it.each([
    ['disk.raw', { driver: 'file', filename: 'disk.raw' }],
    ['/dev/vda', { driver: 'file', filename: '/dev/vda' }],
    ['disk', { driver: 'file', filename: 'disk' }],
    ['./driver=odd', { driver: 'file', filename: './driver=odd' }],
    ['a=b.img', { driver: 'file', filename: 'a=b.img' }],
    ['./{x}', { driver: 'file', filename: './{x}' }],
    ['null:', { driver: 'null' }],
    [
      'nbd://example.org/disk',
      { driver: 'nbd', server: { type: 'inet', host: 'example.org', port: 10809 }, export: 'disk' },
    ],
    ['nbd+unix:///?socket=/run/nbd', { driver: 'nbd', server: UNIX, export: '' }],
    ['{"driver": "null", "size": 512}', { driver: 'null', size: 512 }],
    ['json:{"driver": "null", "read-only": true}', { driver: 'null', 'read-only': true }],
    [
      'driver=null,size=10G,read-only=on',
      { driver: 'null', size: 10 * 2 ** 30, 'read-only': true },
    ],
    ['driver=file,filename=a,,b=c', { driver: 'file', filename: 'a,b=c' }],
    ['filename=a,driver=file', { driver: 'file', filename: 'a' }],
    [
      'driver=nbd,server.type=unix,server.path=/run/nbd,export=a.b',
      { driver: 'nbd', server: UNIX, export: 'a.b' },
    ],
    [
      'driver=nbd,server.type=inet,server.host=::1,server.port=1,contexts.0=a,contexts.1=b',
      { driver: 'nbd', server: { type: 'inet', host: '::1', port: 1 }, contexts: ['a', 'b'] },
    ],
  ])('reads %s', (text, description) => {
    expect(parseDescription(text)).toEqual(description);
  });

  it.each([
    ['', /not an empty text/],
    ['http://example.org/disk', /http:\/\/ is not a known scheme/],
    ['nbd:disk', /nbd:/],
    ['{"driver"', /not valid JSON/],
    ['json:{]', /not valid JSON/],
    ['{"filename": "x"}', /driver is missing.*file, memory, nbd, null/],
    ['{"driver": "vmdk"}', /driver cannot be "vmdk".*file, memory/],
    ['{"driver": "qcow2"}', /file is missing; driver qcow2 needs it/],
    ['driver=qcow2,file.driver=file', /file.filename is missing/],
    ['driver=qcow2,file.driver=file,file.filename=x,backing=y', /backing must be an object/],
    ['{"driver": "toString"}', /driver cannot be "toString"/],
    [
      'driver=file,file=x',
      /file is unknown; driver file has the keys: driver, read-only, force-share, filename, locking/,
    ],
    ['driver=file', /filename is missing/],
    ['driver=nbd,server.type=tcp', /server.type cannot be "tcp".*unix, inet/],
    ['driver=nbd,server.type=unix,server.host=x', /server.host is unknown.*type, path/],
    ['driver=nbd,server=x', /server must be an object, not "x"/],
    ['driver=nbd,server=x,server.type=unix', /server has a value already/],
    ['driver=file,filename=a,filename=b', /filename is said twice/],
    ['driver=file,filename', /"filename" is no key=value/],
    ['driver=file,filename=x,locking=yes', /locking must be on or off or auto, not "yes"/],
    ['driver=null,size=ten', /"ten" is not a size/],
    ['driver=null,read-only=yes', /read-only must be true or false, not "yes"/],
    ['driver=null,__proto__.size=1', /__proto__ is unknown/],
  ])('refuses %j and names the key', (text, message) => {
    expect(() => parseDescription(text)).toThrow(TypeError);
    expect(() => parseDescription(text)).toThrow(message);
  });

  it.each(['a.qcow', 'a.vmdk', 'a.vdi', 'a.vhd', '/x/a.vhdx'])(
    'refuses %s unless it is said to be raw',
    (path) => {
      const refusal = { code: 'ERR_DEVICE_FORMAT', device: path };
      expect(() => parseDescription(path)).toThrow(expect.objectContaining(refusal));
      expect(parseDescription(path, { format: 'raw' })).toEqual({ driver: 'file', filename: path });
    },
  );

  it('says how an image can be read all the same', () => {
    expect(() => parseDescription('disk.vhd')).toThrow(
      /qemu-nbd -f vpc .*say that the format is raw/,
    );
    const format = 'vmdk' as ImageFormat;
    expect(() => parseDescription('disk', { format })).toThrow(/qemu-nbd -f vmdk/);
  });

  it.each(['disk.qcow2', 'DISK.QCOW2'])(
    'takes %s for an image, unless it is said to be raw',
    (path) => {
      const file = { driver: 'file', filename: path };
      expect(parseDescription(path)).toEqual({ driver: 'qcow2', file });
      expect(parseDescription(path, { format: 'raw' })).toEqual(file);
    },
  );

  it('puts an image into whatever it is said to be in', () => {
    const format = 'qcow2';
    const file = { driver: 'file', filename: 'disk.img' };
    expect(parseDescription('disk.img', { format })).toEqual({ driver: 'qcow2', file });
    expect(parseDescription('nbd://host/x', { format })).toMatchObject({
      driver: 'qcow2',
      file: { driver: 'nbd' },
    });
    const image = 'driver=qcow2,file.driver=file,file.filename=disk.img,backing=';
    expect(parseDescription(image, { format })).toEqual({ driver: 'qcow2', file, backing: null });
  });

  it('refuses a description that goes deeper than any chain', () => {
    const deep = 'backing.'.repeat(600);
    expect(() => parseDescription(`driver=qcow2,${deep}driver=file`)).toThrow(TypeError);
    let nested: unknown = { driver: 'file', filename: 'x' };
    for (let i = 0; i < 600; i++) nested = { driver: 'qcow2', file: nested };
    expect(() => checkDescription(nested)).toThrow(/too deep/);
  });
});

describe('checkDescription', () => {
  it.each([
    [undefined, /must be an object/],
    [null, /must be an object/],
    [[], /must be an object/],
    [{ driver: 'file', filename: 5 }, /filename must be a text, not 5/],
    [{ driver: 'file', filename: 'a\0b' }, /filename must be a text/],
    [{ driver: 'null', size: -1 }, /size must be a size in bytes, not -1/],
    [{ driver: 'null', size: 2 ** 53 }, /size must be a size of at most \d+ bytes \(8 PiB - 1\)/],
    [{ driver: 'null', 'read-only': 1 }, /read-only must be true or false, not 1/],
    [{ driver: 'nbd', server: { type: 'unix', path: 1 } }, /server.path must be a text/],
    [{ driver: 'nbd', server: { type: 'inet', host: 'x', port: 0 } }, /server.port must be a port/],
    [{ driver: 'nbd', server: UNIX, contexts: 'a' }, /contexts must be a list of texts/],
    [{ driver: 'nbd', server: UNIX, contexts: [1] }, /contexts.0 must be a text/],
  ])('refuses %j', (value, message) => {
    expect(() => checkDescription(value)).toThrow(TypeError);
    expect(() => checkDescription(value)).toThrow(message);
  });

  it('takes ports as texts, as QEMU writes them, and leaves out what is undefined', () => {
    const server = { type: 'inet', host: 'x', port: '10809' };
    expect(checkDescription({ driver: 'nbd', server, export: undefined })).toEqual({
      driver: 'nbd',
      server: { type: 'inet', host: 'x', port: 10809 },
    });
  });
});
