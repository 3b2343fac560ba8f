/**
 * Keeps the end of a process and the loading of koffi apart. `process.exit` ends all threads, and one that is loading koffi
 * just then has Node abort the whole process.
 */

/** Loaded when it is needed: a small copy starts no threads. */
const threads = () => process.getBuiltinModule('node:worker_threads');

const NAME = 'lacuna:koffi';
/** Cells that all threads share: how many are loading koffi, and 1 once the process is ending. */
const LOADING = 0;
const ENDING = 1;

/** Loading takes some milliseconds. A thread that takes longer was terminated meanwhile, and never says that it has ended. */
const PATIENCE_MS = 2000;

/**
 * Has the end of the process wait until no thread is loading koffi, for two seconds at most. To be called before threads are started
 * that may load it.
 */
export function guardKoffi(): void {
  const { getEnvironmentData, setEnvironmentData } = threads();
  if (getEnvironmentData(NAME) !== undefined) return;
  const cells = new Int32Array(new SharedArrayBuffer(8));
  setEnvironmentData(NAME, cells);
  process.on('exit', () => {
    Atomics.store(cells, ENDING, 1);
    const end = performance.now() + PATIENCE_MS;
    for (;;) {
      const loading = Atomics.load(cells, LOADING);
      const leftMs = end - performance.now();
      if (loading === 0 || leftMs <= 0) return;
      Atomics.wait(cells, LOADING, loading, leftMs);
    }
  });
}

/** Says that this thread is going to load koffi; what it returns says that it has. Where the process is ending it never returns. */
export function beginLoading(): () => void {
  const { getEnvironmentData, isMainThread } = threads();
  const cells = isMainThread ? undefined : (getEnvironmentData(NAME) as Int32Array | undefined);
  if (cells === undefined) return () => {};
  const endLoading = () => {
    Atomics.sub(cells, LOADING, 1);
    Atomics.notify(cells, LOADING);
  };
  Atomics.add(cells, LOADING, 1);
  if (Atomics.load(cells, ENDING) === 1) {
    endLoading();
    Atomics.wait(cells, ENDING, 1);
  }
  return endLoading;
}
