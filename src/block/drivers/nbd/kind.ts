import { resolve } from 'node:path';
// Not through the index of src/nbd: a command that copies files should not load a client to read a path.
import { parseNbdUri } from '../../../nbd/address/index.js';
import {
  byType,
  type DriverKind,
  flag,
  type Keys,
  port,
  seconds,
  text,
  texts,
  timeout,
} from '../../contract/index.js';
import type { NbdDescription } from './description.js';

const SERVERS: Readonly<Record<string, Keys>> = {
  unix: { type: { read: text }, path: { read: text, required: true } },
  inet: {
    type: { read: text },
    host: { read: text, required: true },
    port: { read: port, required: true },
  },
};

const TLS: Readonly<Record<string, Keys>> = {
  x509: {
    type: { read: text },
    certificates: { read: text },
    ca: { read: text },
    cert: { read: text },
    key: { read: text },
    hostname: { read: text },
    'verify-peer': { read: flag },
  },
  psk: {
    type: { read: text },
    username: { read: text },
    'psk-file': { read: text },
    key: { read: text },
  },
};

const URI = /^nbds?(\+[a-z]+)?:/i;

const LOOPBACK = /^(localhost|127\.[\d.]+|::1)$/;

export const nbd: DriverKind<NbdDescription> = {
  keys: {
    server: { read: byType(SERVERS), required: true },
    export: { read: text },
    tls: { read: byType(TLS) },
    contexts: { read: texts },
    allocation: { read: flag },
    'reconnect-delay': { read: seconds },
    'open-timeout': { read: seconds },
    'connect-timeout': { read: timeout },
    'request-timeout': { read: timeout },
  },
  // A caller that may name devices may name files, so the certificates that a URI names are read.
  parse: (uri) =>
    URI.test(uri) ? { driver: 'nbd', ...parseNbdUri(uri, { localFiles: true }) } : undefined,
  // Loaded when it is needed: with TLS and all it takes longer to load than a small file takes to copy.
  open: async (description, { signal }) => {
    const { NbdDriver } = await import('./nbd.js');
    return NbdDriver.open(description, signal);
  },
  place: ({ server, export: exportName = '' }) => {
    const address = 'path' in server ? resolve(server.path) : `${server.host}:${server.port}`;
    return `export '${exportName}' of ${address}`;
  },
  // Loaded when it is needed, as names are looked up there.
  isSame: async (a, b) => {
    const { isSameExport } = await import('./same-export.js');
    return await isSameExport(a, b);
  },
  remote: true,
  isServedHere: ({ server }) => 'path' in server || LOOPBACK.test(server.host),
};
