import fc from 'fast-check';
import { formatNbdUri, type NbdLocation, parseNbdUri } from 'lacuna/nbd';
import { describe, expect, test } from 'vitest';

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
    ['nbd://host:0/', 'not a port'],
    ['nbd://host:65536/', 'not a port'],
    ['nbd://host:x/', 'HOST[:PORT]'],
    ['nbd://::1/', 'brackets'],
    ['nbd://user@host/', 'user name'],
    ['nbd://host/?socket=/s', 'nbd+unix'],
    ['nbd://host/?tls-type=psk', '"tls-type"'],
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

  test.each(['nbds://host/', 'nbds+unix:///?socket=/s'])('%s needs TLS, not yet there', (uri) => {
    expect(() => parseNbdUri(uri)).toThrow(
      expect.objectContaining({ code: 'ERR_NBD_UNSUPPORTED' }) as unknown as Error,
    );
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
    fc.assert(
      fc.property(server, fc.oneof(fc.constant(''), text), (address, name) => {
        const location: NbdLocation = { server: address, export: name };
        expect(parseNbdUri(formatNbdUri(address, name))).toEqual(location);
      }),
    );
  });
});
