import { byId, element, keep, setText } from './dom.js';
import { clock, counted, duration } from './format.js';
import type { Export, Happening } from './types.js';

export function showExports(exports: readonly Export[]): void {
  byId('no-exports').hidden = exports.length > 0;
  keep(byId('export-list'), exports, {
    key: ({ name }) => name,
    make: ({ name }) =>
      element(
        'li',
        { class: 'export' },
        element(
          'div',
          {},
          element('h3', {}, name),
          element('span', { class: 'quiet where' }),
          element('span', { class: 'badge count' }),
        ),
        element('ul', { class: 'clients' }),
      ),
    update: (made, { node, writable, clients }) => {
      setText(
        made.querySelector('.where')!,
        `${node}, ${writable ? 'may be written' : 'read-only'}`,
      );
      setText(
        made.querySelector('.count')!,
        clients.length === 0 ? 'no client' : counted(clients.length, 'client'),
      );
      keep(made.querySelector('.clients')!, clients, {
        key: ({ client }) => String(client),
        make: () => element('li'),
        update: (line, { client, address, since }) => {
          const from = address === undefined ? 'Unix socket' : address;
          setText(
            line,
            `client ${client}, ${from}, for ${duration(Math.max(0, Date.now() - since))}`,
          );
        },
      });
    },
  });
}

const MOST_LINES = 100;

/** The last events, the newest first, and how many there are in a second. */
export class EventsView {
  #events: Happening[] = [];
  #leftOut = 0;
  #counted = 0;
  #since = performance.now();

  /** Forgets all: the server, which may be another one, tells the last ones anew. */
  clear(): void {
    this.#events = [];
  }

  add(events: readonly Happening[], leftOut: number): void {
    this.#events = [...this.#events, ...events].slice(-MOST_LINES);
    this.#leftOut += leftOut;
    this.#counted += events.length + leftOut;
  }

  show(): void {
    keep(byId('event-list'), [...this.#events].reverse(), {
      key: ({ number }) => String(number),
      make: ({ at, kind, text, isBad }) =>
        element(
          'li',
          { class: isBad ? 'event bad' : 'event' },
          element('time', { datetime: new Date(at).toISOString() }, clock(at)),
          element('span', { class: 'kind' }, kind),
          element('span', {}, text),
        ),
    });
    const seconds = (performance.now() - this.#since) / 1000;
    if (seconds < 1) return;
    const rate = Math.round(this.#counted / seconds);
    setText(
      byId('event-rate'),
      rate > 10 ? `${rate} a second, the last ${MOST_LINES} are shown` : '',
    );
    this.#counted = 0;
    this.#since = performance.now();
  }
}
