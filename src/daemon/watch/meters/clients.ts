import type { NbdClientMessage } from '../../../nbd/index.js';

/** A client of an NBD server. */
export interface SeenClient {
  readonly client: number;
  readonly export: string;
  /** What is served there. */
  readonly device: unknown;
  readonly address?: string;
  /** When it came, in milliseconds since 1970. */
  readonly since: number;
}

/** The clients that are there now, of those who came since this listens. */
export class Clients {
  readonly #there = new Map<number, SeenClient>();
  /** What was served last by each name. */
  readonly #served = new Map<string, unknown>();

  heed({ client, event, export: name, device, address }: NbdClientMessage): void {
    if (event === 'left') {
      this.#there.delete(client);
      return;
    }
    this.#served.set(name, device);
    const from = address === undefined ? {} : { address };
    this.#there.set(client, { client, export: name, device, since: Date.now(), ...from });
  }

  get all(): readonly SeenClient[] {
    return [...this.#there.values()];
  }

  /** Forgets the exports that nobody uses, and that are not there any more. @returns the names of the others */
  keep(isThere: (device: unknown) => boolean): ReadonlySet<string> {
    const used = new Set(this.all.map((client) => client.export));
    for (const [name, device] of this.#served) {
      if (isThere(device)) used.add(name);
      else if (!used.has(name)) this.#served.delete(name);
    }
    return used;
  }
}
