/** A signal that fires when it has been looked at so often: work that looks at it in between is ended at each of its steps. */
export function firesAfter(looks: number): AbortSignal {
  const { signal } = new AbortController();
  let left = looks;
  return Object.defineProperty(signal, 'aborted', { get: () => left-- <= 0 });
}
