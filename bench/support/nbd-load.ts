/** Requests of an NBD client, many at a time, over one connection. */
import { randomFillSync } from 'node:crypto';
import { NbdClient, parseNbdUri } from 'lacuna/nbd';
import { Random } from 'lacuna/testing';

/** What is asked. */
export interface NbdLoad {
  readonly rw: 'read' | 'write';
  /** Requests, and how many at a time. */
  readonly count: number;
  readonly depth: number;
  /** Bytes of a request. */
  readonly bytes: number;
  /** Places that are the same in every run, or one behind the other from the start. */
  readonly order: 'random' | 'sequential';
}

/** Asks all of it, and waits for the answers. */
export async function nbdLoad(uri: string, load: NbdLoad): Promise<void> {
  const { rw, depth, count, bytes, order } = load;
  const { server, export: name } = parseNbdUri(uri);
  const client = await NbdClient.connect({ server, export: name });
  const random = new Random(1);
  const places = Math.floor(client.size / bytes);
  let next = 0;
  const lane = async () => {
    const buffer = randomFillSync(Buffer.alloc(bytes));
    while (next < count) {
      const place = order === 'random' ? random.below(places) : next % places;
      next++;
      if (rw === 'read') await client.read(place * bytes, buffer);
      else await client.write(place * bytes, buffer);
    }
  };
  await Promise.all(Array.from({ length: depth }, lane));
  await client.close();
}
