import type { ServerResponse } from 'node:http';

/** Nothing from elsewhere, nothing inline, no frame around it, no form that goes away. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

const HEADERS = {
  'content-security-policy': POLICY,
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'cache-control': 'no-store',
} as const;

/** What is answered. */
export interface Answer {
  readonly status?: number;
  readonly type: string;
  readonly body: string | Uint8Array;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Sends an answer; to a HEAD without its body. */
export function send(
  response: ServerResponse,
  { status = 200, type, body, headers }: Answer,
): void {
  response.writeHead(status, {
    ...HEADERS,
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    ...headers,
  });
  response.end(response.req.method === 'HEAD' ? undefined : body);
}

export function sendJson(
  response: ServerResponse,
  value: unknown,
  {
    status = 200,
    headers = {},
  }: { status?: number; headers?: Readonly<Record<string, string>> } = {},
): void {
  const body = `${JSON.stringify(value)}\n`;
  send(response, { status, type: 'application/json', body, headers });
}

/** Begins an answer that has no end. */
export function beginStream(response: ServerResponse, type: string): void {
  response.writeHead(200, { ...HEADERS, 'content-type': type });
}
