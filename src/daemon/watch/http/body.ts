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

function readText(request: IncomingMessage): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    request.on('data', (chunk: Buffer) => {
      length += chunk.length;
      if (length <= MOST_BYTES) chunks.push(chunk);
      else reject(tooLong());
    });
    request.on('end', () => resolve(Buffer.concat(chunks).toString('utf8')));
    request.on('error', reject);
  });
}

/** What else the client sends is dropped, until it is told to end or has taken too long. */
function tooLong(): HttpError {
  const told = `the body has more than ${MOST_BYTES} bytes`;
  return new HttpError(413, told, { connection: 'close' });
}
