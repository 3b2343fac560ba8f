import type { ServerResponse } from 'node:http';
import { beginStream, HttpError } from '../http/index.js';
import type { EventLog, WatchState } from '../state/index.js';
import { type Section, Viewer } from './viewer.js';

/** Between two looks: what happens meanwhile is told together. */
const TICK_MS = 250;
const MOST_VIEWERS = 32;
/** Of many events at a time, the last are told. */
const MOST_EVENTS = 60;

/** Tells pages what there is, and what happens, a few times a second at most, however much that is. */
export class Broadcast {
  readonly #log: EventLog;
  readonly #look: () => WatchState;
  readonly #viewers = new Set<Viewer>();
  #timer: NodeJS.Timeout | undefined;

  /** @param look tells what there is now; it is asked only while somebody watches. */
  constructor(log: EventLog, look: () => WatchState) {
    this.#log = log;
    this.#look = look;
  }

  /** Begins to tell one page. @throws HttpError where there are too many. */
  add(response: ServerResponse): void {
    if (this.#viewers.size >= MOST_VIEWERS) {
      throw new HttpError(503, `${MOST_VIEWERS} pages are open already: close one`);
    }
    beginStream(response, 'text/event-stream');
    const viewer = new Viewer(response);
    this.#viewers.add(viewer);
    response.on('close', () => this.#remove(viewer));
    this.#show([viewer], this.#sections());
    this.#timer ??= setInterval(() => this.#tick(), TICK_MS);
    this.#timer.unref();
  }

  close(): void {
    for (const viewer of this.#viewers) viewer.end();
    clearInterval(this.#timer);
  }

  #remove(viewer: Viewer): void {
    this.#viewers.delete(viewer);
    if (this.#viewers.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #tick(): void {
    const ready = [...this.#viewers].filter((viewer) => viewer.takes());
    if (ready.length > 0) this.#show(ready, this.#sections());
  }

  #sections(): Section[] {
    return Object.entries(this.#look()).map(([name, value]) => ({
      name,
      text: JSON.stringify(value),
    }));
  }

  #show(viewers: readonly Viewer[], sections: readonly Section[]): void {
    for (const viewer of viewers) {
      viewer.show(sections);
      this.#tellEvents(viewer);
    }
  }

  #tellEvents(viewer: Viewer): void {
    const { count } = this.#log;
    if (viewer.lastEvent === count) return;
    const news = this.#log.after(viewer.lastEvent);
    const events = news.slice(-MOST_EVENTS);
    const leftOut = viewer.lastEvent === 0 ? 0 : count - viewer.lastEvent - events.length;
    viewer.lastEvent = count;
    viewer.tell('events', JSON.stringify({ events, leftOut }));
  }
}
