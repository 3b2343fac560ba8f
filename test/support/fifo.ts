import koffi from 'koffi';

const mkfifo = koffi.load(null).func('int mkfifo(const char *, unsigned int)');

/** Makes a named pipe; Node has no call for it. */
export function makeFifo(path: string): void {
  if (mkfifo(path, 0o600) === 0) return;
  throw new Error(`Cannot make a named pipe at ${path} (errno ${koffi.errno()})`);
}
