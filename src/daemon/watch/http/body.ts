import type { IncomingMessage } from 'node:http';
import { HttpError } from './http-error.js';

/** No request here needs more. */
const MOST_BYTES = 16 * 1024;

/**
 * Reads the JSON object of a request.
 *
 * @throws HttpError where it is none, or too long.
 */
export async function readObject(request: IncomingMessage): Promise<Record<string, unknown>> {
  const type = request.headers['content-type'] ?? '';
  if (!/^application\/json\b/.test(type)) {
    throw new HttpError(415, 'the body must be application/json');
  }
  const text = await readText(request);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new HttpError(400, 'the body is not JSON');
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  throw new HttpError(400, 'the body must be a JSON object');
}

async function readText(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    // What else it sends is not read: the connection ends behind the answer.
    if (length > MOST_BYTES) {
      throw new HttpError(413, `the body has more than ${MOST_BYTES} bytes`, {
        connection: 'close',
      });
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}
