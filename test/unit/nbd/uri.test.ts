import { formatNbdUri, type NbdLocation, type NbdTls, parseNbdUri } from 'lacuna/nbd';
import { describe, expect, test } from 'vitest';
import fc from '../../support/fast-check.js';

const inet = (host: string, port = 10809) => ({ type: 'inet', host, port });
const unix = (path: string) => ({ type: 'unix', path });

describe('an NBD URI', () => {
  test.each([
    ['nbd://host', inet('host'), ''],
    ['nbd://host/', inet('host'), ''],
    ['NBD://Host:1/a', inet('Host', 1), 'a'],
    ['nbd:///disk', inet('localhost'), 'disk'],
    ['nbd://[::1]:9000/x', inet('::1', 9000), 'x'],
    ['nbd://[fe80::1%25eth0]/x', inet('fe80::1%eth0'), 'x'],
    ['nbd://10.0.0.1/a/b', inet('10.0.0.1'), 'a/b'],
    ['nbd://host//disk', inet('host'), '/disk'],
    ['nbd://host/my%20disk%2Fx', inet('host'), 'my disk/x'],
    ['nbd+unix:///?socket=/run/a%20b', unix('/run/a b'), ''],
    ['nbd+unix:///x?socket=a', unix('a'), 'x'],
    ['nbd+unix://?socket=/s', unix('/s'), ''],
  ])('%s is understood', (uri, server, name) => {
    expect(parseNbdUri(uri)).toEqual({ server, export: name });
  });

  test.each([
    ['host:10809', 'must look like'],
    ['nbd:host', 'must look like'],
    ['http://host/', '"http" is not one of'],
    ['nbd+ssh://host/', '"nbd+ssh" is not one of'],
    ['nbd://host:0/', 'not a port'],
    ['nbd://host:65536/', 'not a port'],
    ['nbd://host:x/', 'HOST[:PORT]'],
    ['nbd://::1/', 'brackets'],
    ['nbd://user@host/', 'user name'],
    ['nbd://host/?socket=/s', 'nbd+unix'],
    ['nbd://host/?tls-type=psk', '"tls-type"'],
    ['nbd://host/?colour=red', '"colour" is not known'],
    ['nbd+unix:///', 'socket=PATH'],
    ['nbd+unix:///?socket=', 'socket=PATH'],
    ['nbd+unix:///?socket=/a&socket=/b', 'twice'],
    ['nbd+unix://host/?socket=/s', 'no host'],
    ['nbd+unix:///?socket=/a%00', 'NUL'],
    ['nbd://host/%zz', 'percent-encoded'],
    ['nbd://host/a#b', 'must look like'],
  ])('%s is refused with its reason', (uri, reason) => {
    expect(() => parseNbdUri(uri)).toThrow(TypeError);
    expect(() => parseNbdUri(uri)).toThrow(reason);
  });

  test.each<[string, NbdTls]>([
    ['nbds://host/', { type: 'x509' }],
    ['nbds+unix:///?socket=/s', { type: 'x509' }],
    ['nbds://host/?tls-type=x509&tls-hostname=a.b', { type: 'x509', hostname: 'a.b' }],
    ['nbds://host/?tls-verify-peer=0', { type: 'x509', 'verify-peer': false }],
    ['nbds://host/?tls-verify-peer=true', { type: 'x509', 'verify-peer': true }],
    ['nbds://alice@host/', { type: 'psk', username: 'alice' }],
    ['nbds+unix://a%40b@/?socket=/s', { type: 'psk', username: 'a@b' }],
    ['nbds://host/?tls-psk-file=/k', { type: 'psk', 'psk-file': '/k' }],
    ['nbds://host/?tls-certificates=/c%20d', { type: 'x509', certificates: '/c d' }],
    ['nbds://alice@host/?tls-type=psk', { type: 'psk', username: 'alice' }],
  ])('%s requires TLS', (uri, tls) => {
    expect(parseNbdUri(uri, { localFiles: true }).tls).toEqual(tls);
  });

  test.each([
    ['nbds://host/?tls-type=none', 'x509 or psk'],
    ['nbds://host/?tls-verify-peer=perhaps', 'true or false'],
    ['nbds://host/?tls-type=psk&tls-hostname=a', 'no meaning'],
    ['nbds://host/?tls-type=x509&tls-psk-file=/k', 'no meaning'],
    ['nbds://alice@host/?tls-type=x509', 'tls-type=psk'],
    ['nbd://host/?tls-hostname=a', 'nbds URIs only'],
    ['nbd://host/?tls-certificates=/c', 'nbds URIs only'],
  ])('%s is refused, so that nobody feels safe who is not', (uri, reason) => {
    expect(() => parseNbdUri(uri, { localFiles: true })).toThrow(TypeError);
    expect(() => parseNbdUri(uri, { localFiles: true })).toThrow(reason);
  });

  test('names files of this machine only where the caller allows it', () => {
    for (const key of ['tls-certificates', 'tls-psk-file']) {
      const uri = `nbds://host/?${key}=/etc/shadow`;
      expect(() => parseNbdUri(uri)).toThrow('not allowed');
      expect(parseNbdUri(uri, { localFiles: true }).tls).toMatchObject({});
    }
  });

  test.each(['nbds://host/?tls-type=anon', 'nbd+vsock://2:10809/', 'nbds+vsock://2/'])(
    '%s cannot be had, and says why',
    (uri) => {
      expect(() => parseNbdUri(uri)).toThrow(
        expect.objectContaining({ code: 'ERR_NBD_UNSUPPORTED' }) as unknown as Error,
      );
    },
  );

  test('never shows a key, a certificate or where they lie', () => {
    const server = { type: 'inet' as const, host: 'h', port: 1 };
    const secrets: NbdTls[] = [
      { type: 'psk', username: 'u', key: '5ec4e7', 'psk-file': '/5ec4e7' },
      { type: 'x509', certificates: '/5ec4e7', ca: '5ec4e7', cert: '5ec4e7', key: '5ec4e7' },
    ];
    for (const tls of secrets) expect(formatNbdUri(server, '', tls)).not.toContain('5ec4e7');
  });

  test('says what formatNbdUri was told, whatever the names', () => {
    const text = fc
      .string({ unit: 'grapheme', minLength: 1 })
      .filter((value) => !value.includes('\0'));
    const server = fc.oneof(
      fc.record({ type: fc.constant('unix' as const), path: text }),
      fc.record({
        type: fc.constant('inet' as const),
        host: fc.oneof(fc.domain(), fc.ipV4(), fc.ipV6(), fc.constant('fe80::1%eth0')),
        port: fc.integer({ min: 1, max: 65535 }),
      }),
    );
    const tls = fc.oneof(
      fc.constant(undefined),
      fc.record({ type: fc.constant('psk' as const), username: text }),
      fc.record(
        { type: fc.constant('x509' as const), hostname: text, 'verify-peer': fc.constant(false) },
        { requiredKeys: ['type'] },
      ),
    );
    fc.assert(
      fc.property(server, fc.oneof(fc.constant(''), text), tls, (address, name, secured) => {
        const location: NbdLocation = {
          server: address,
          export: name,
          ...(secured !== undefined && { tls: secured }),
        };
        expect(parseNbdUri(formatNbdUri(address, name, secured))).toEqual(location);
      }),
    );
  });
});
