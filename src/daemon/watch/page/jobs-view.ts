import { change } from './api.js';
import { confirmed, type Question } from './dialogs.js';
import { byId, element, keep, setAttributes, setText } from './dom.js';
import { bytes, duration, rate } from './format.js';
import type { Job, Verb } from './types.js';

/** The jobs, the newest first, with what can be done with each. */
export class JobsView {
  readonly #say: (text: string) => void;
  readonly #states = new Map<string, string>();
  readonly #failures = new Map<string, string>();
  #jobs: readonly Job[] = [];

  /** @param say tells those who hear the page. */
  constructor(say: (text: string) => void) {
    this.#say = say;
  }

  show(jobs: readonly Job[]): void {
    this.#jobs = jobs;
    byId('no-jobs').hidden = jobs.length > 0;
    keep(byId('job-list'), [...jobs].reverse(), {
      key: ({ id }) => id,
      make: (job) => makeJob(job),
      update: (made, job) => this.#update(made, job),
    });
    this.#tellChanges(jobs);
  }

  #update(made: HTMLLIElement, job: Job): void {
    const { state, isReady, totalBytes, doneBytes } = job;
    const shown = isReady && state === 'running' ? 'ready' : state;
    setAttributes(made, { 'data-state': shown });
    setText(made.querySelector('.badge')!, shown);
    const fraction = fractionOf(job);
    const bar = made.querySelector<HTMLElement>('[role=progressbar]')!;
    const percent = Math.floor(fraction * 100);
    setAttributes(bar, { 'aria-valuenow': percent, 'aria-valuetext': `${percent} %, ${shown}` });
    (bar.firstElementChild as HTMLElement).style.width = `${fraction * 100}%`;
    const amount = totalBytes === 0 ? '' : `${bytes(doneBytes)} of ${bytes(totalBytes)}`;
    setText(made.querySelector('.amount')!, amount);
    setText(made.querySelector('.pace')!, paceOf(job));
    const failure = this.#failures.get(job.id) ?? job.error ?? '';
    setText(made.querySelector('.failure')!, failure);
    keep(made.querySelector('.actions')!, job.verbs, {
      key: (verb) => verb,
      make: (verb) => this.#button(job.id, verb),
      update: (button, verb) => setText(button, nameOf(verb, job)),
    });
  }

  #button(id: string, verb: Verb): HTMLButtonElement {
    const isLast = verb === 'stop' || verb === 'cancel';
    const button = element('button', { type: 'button', class: isLast ? 'plain bad' : 'plain' });
    button.dataset.verb = verb;
    button.addEventListener('click', () => void this.#do(id, verb));
    return button;
  }

  async #do(id: string, verb: Verb): Promise<void> {
    const job = this.#jobs.find((one) => one.id === id);
    if (job === undefined) return;
    const question = QUESTIONS[verb]?.(job);
    if (question !== undefined && !(await confirmed(question))) return;
    const copyMode = job.copyMode === 'background' ? 'write-blocking' : 'background';
    const body = verb === 'change' ? { action: verb, copyMode } : { action: verb };
    try {
      await change(`/jobs/${encodeURIComponent(id)}`, body);
      this.#failures.delete(id);
    } catch (error) {
      this.#failures.set(id, (error as Error).message);
      this.#say(`${id}: ${(error as Error).message}`);
    }
    this.show(this.#jobs);
  }

  /** Says how the states of jobs have changed, and not how far they are, which changes all the time. */
  #tellChanges(jobs: readonly Job[]): void {
    for (const { id, state, isReady } of jobs) {
      const now = isReady && state === 'running' ? 'ready' : state;
      const before = this.#states.get(id);
      if (before !== undefined && before !== now) this.#say(`${id} is ${now}`);
      this.#states.set(id, now);
    }
  }
}

const QUESTIONS: Partial<Record<Verb, (job: Job) => Question>> = {
  stop: ({ id, type }) => ({
    title: `Stop ${id}?`,
    text: `The ${type} ends where it is, and cannot go on from there. What it has made so far is not whole.`,
    yes: 'Stop it',
  }),
  cancel: ({ id }) => ({
    title: `End ${id} without switching?`,
    text: 'The target becomes a copy of this moment, and is not kept up to date any more. Everybody goes on using what they use.',
    yes: 'End it',
  }),
  complete: ({ id, nodes }) => ({
    title: `Complete ${id}?`,
    text: `Everybody who uses ${nodes.join(', ') || 'the node'} uses the target from then on. This cannot be taken back.`,
    yes: 'Complete it',
  }),
};

function makeJob({ id, type, nodes }: Job): HTMLLIElement {
  const bar = element(
    'div',
    {
      class: 'progress',
      role: 'progressbar',
      'aria-valuemin': 0,
      'aria-valuemax': 100,
      'aria-label': `Progress of ${id}`,
    },
    element('div'),
  );
  return element(
    'li',
    { class: 'job' },
    element(
      'div',
      { class: 'job-head' },
      element('h3', {}, id),
      element(
        'span',
        { class: 'quiet' },
        nodes.length === 0 ? type : `${type} of ${nodes.join(', ')}`,
      ),
      element('span', { class: 'badge' }),
    ),
    bar,
    element(
      'p',
      { class: 'numbers' },
      element('span', { class: 'amount' }),
      element('span', { class: 'pace' }),
    ),
    element('p', { class: 'failure' }),
    element('div', { class: 'actions' }),
  );
}

function fractionOf({ state, totalBytes, doneBytes }: Job): number {
  if (state === 'done') return 1;
  return totalBytes === 0 ? 0 : Math.min(1, doneBytes / totalBytes);
}

function paceOf({ state, isReady, bytesPerSecond, remainingMs, elapsedMs, copyMode }: Job): string {
  if (state === 'paused') return 'paused';
  if (state === 'waiting') return 'waits for the jobs with which it ends';
  if (state === 'pending') return 'waits to be finalized';
  if (state !== 'running') return `after ${duration(elapsedMs)}`;
  if (isReady) return `kept up to date, ${copyMode ?? 'background'}`;
  const left = remainingMs === undefined ? '' : `, ${duration(remainingMs)} left`;
  return `${rate(bytesPerSecond)}${left}`;
}

function nameOf(verb: Verb, { copyMode }: Job): string {
  if (verb !== 'change') return `${verb[0].toUpperCase()}${verb.slice(1)}`;
  return copyMode === 'background' ? 'Write both at once' : 'Copy in the background';
}
