/** The first descriptor behind standard error, where sockets are handed over. */
const FIRST_FD = 3;

/** A listening socket that was handed over. */
export interface ActivatedSocket {
  readonly fd: number;
  /** What the one who started this process calls it; empty where that is not said. */
  readonly name: string;
}

/**
 * The listening sockets that whoever started this process has handed over (systemd's socket activation, which libnbd,
 * nbdkit and QEMU use as well). They are taken once: what this process starts does not get them.
 *
 * @throws TypeError where it is not said how many they are.
 */
export function takeActivatedSockets(
  env: NodeJS.ProcessEnv = process.env,
  pid = process.pid,
): ActivatedSocket[] {
  const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES = '' } = env;
  // Meant for another process, which has passed its environment on.
  if (LISTEN_FDS === undefined || LISTEN_PID !== String(pid)) return [];
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete env[name];
  if (!/^[1-9]\d{0,3}$/.test(LISTEN_FDS)) {
    throw new TypeError(`LISTEN_FDS must say how many sockets were handed over, not ${LISTEN_FDS}`);
  }
  const names = LISTEN_FDNAMES.split(':');
  return Array.from({ length: Number(LISTEN_FDS) }, (_, i) => ({
    fd: FIRST_FD + i,
    name: names[i] ?? '',
  }));
}
