/**
 * How the two sides of an NBD connection prove who they are. The keys have the names of the `tls-...`
 * parameters of NBD URIs, the files in a folder those of QEMU and libnbd, so one folder serves all.
 * Plain JSON: a worker that opens its own connection gets the same.
 */

import { optionCheck } from '../../util/index.js';

/** X.509 certificates or a pre-shared key. Either way TLS is required: nothing is said without it. */
export type NbdTls = NbdTlsX509 | NbdTlsPsk;

/** Certificates, and the authorities that vouch for them. */
export interface NbdTlsX509 {
  /** Always `x509`. */
  type: 'x509';
  /** Folder with `ca-cert.pem` and, where this side has a certificate, its `-cert.pem` and `-key.pem`. */
  certificates?: string;
  /** PEM text of the authorities to trust, in place of files. Default: those that Node trusts. */
  ca?: string;
  /** PEM text of this side's certificate. */
  cert?: string;
  /** PEM text of the certificate's private key. */
  key?: string;
  /** The name that the server's certificate must bear. Default: the host; `localhost` for a Unix socket. */
  hostname?: string;
  /** Whether the peer must prove who it is. Default true; without it anybody may be in between. */
  'verify-peer'?: boolean;
}

/** A key that both sides have. */
export interface NbdTlsPsk {
  /** Always `psk`. */
  type: 'psk';
  /** Whose key is used. Default: the only one of the file. */
  username?: string;
  /** File with lines `username:key`, the key in hexadecimal, as psktool makes it. */
  'psk-file'?: string;
  /** The key itself in hexadecimal, in place of a file. */
  key?: string;
}

/**
 * How a server speaks TLS, which clients begin with NBD_OPT_STARTTLS. In its words "the peer" is a client: with
 * certificates it must have one of its own where there is an authority to vouch for it, unless `verify-peer` is
 * false; with keys, any user of the file is let in.
 */
export type NbdServerTls = (Omit<NbdTlsX509, 'hostname'> | NbdTlsPsk) & {
  /**
   * `require` (the default): a client learns nothing without TLS. `on`: the client chooses, so whoever sits in
   * between can choose for it.
   */
  readonly mode?: 'on' | 'require';
};

/** @throws TypeError where a server could not prove who it is, or check who its clients are. */
export function checkServerTls(tls: NbdServerTls): void {
  if (tls.type === 'psk') {
    const { username, key, 'psk-file': file } = tls;
    if (file !== undefined || (key !== undefined && username !== undefined)) return;
    throw new TypeError('TLS with shared keys needs a psk-file, or a username and its key');
  }
  const { certificates, ca, cert, key } = tls;
  if (certificates !== undefined) return;
  if (cert === undefined || key === undefined) {
    throw new TypeError('TLS needs a certificate and its key, or a folder that has them');
  }
  if (tls['verify-peer'] && ca === undefined) throw new TypeError('verify-peer needs a ca');
}

const TLS_TYPE = { needed: "'x509' or 'psk'" } as const;
const checkX509 = optionCheck<NbdTlsX509 & { mode?: string }>({
  type: TLS_TYPE,
  certificates: 'any',
  ca: 'any',
  cert: 'any',
  key: 'any',
  hostname: 'any',
  'verify-peer': 'flag',
  mode: 'any',
});
const checkPsk = optionCheck<NbdTlsPsk & { mode?: string }>({
  type: TLS_TYPE,
  username: 'any',
  'psk-file': 'any',
  key: 'any',
  mode: 'any',
});

/** Throws unless what is said of TLS has the keys of its type, and no others. */
export function checkTlsKeys(owner: string, tls: { type?: unknown } | undefined): void {
  if (tls === undefined) return;
  if (tls.type === 'x509') checkX509(owner, tls as NbdTlsX509);
  else if (tls.type === 'psk') checkPsk(owner, tls as NbdTlsPsk);
  else throw new TypeError(`${owner} needs a type: 'x509' or 'psk'`);
}
