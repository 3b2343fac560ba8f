import { type IncomingHttpHeaders, request } from 'node:http';

/** Where a server listens. */
type Where = { readonly type: 'unix'; readonly path: string } | HostAndPort;
type HostAndPort = { readonly type: 'inet'; readonly host: string; readonly port: number };

/** What is asked. */
interface Question {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as JSON, a text as it is. */
  readonly body?: unknown;
}

/** What was answered. */
export interface Answered {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  /** The body as JSON. */
  json(): Record<string, unknown>;
}

/** Asks a server over HTTP, on a connection of its own; unlike `fetch`, it sends any header. */
export function askHttp(
  where: Where,
  path: string,
  { method = 'GET', headers = {}, body }: Question = {},
): Promise<Answered> {
  const to =
    where.type === 'unix' ? { socketPath: where.path } : { host: where.host, port: where.port };
  const type = body === undefined ? {} : { 'content-type': 'application/json' };
  return new Promise((resolve, reject) => {
    const asked = request(
      { ...to, path, method, agent: false, headers: { host: 'localhost', ...type, ...headers } },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () => {
          const text = Buffer.concat(chunks).toString();
          const { statusCode = 0 } = response;
          resolve({
            status: statusCode,
            headers: response.headers,
            text,
            json: () => JSON.parse(text),
          });
        });
      },
    );
    asked.on('error', reject);
    asked.end(typeof body === 'object' ? JSON.stringify(body) : body);
  });
}
