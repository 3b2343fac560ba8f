/** The first descriptor behind standard error, where sockets are handed over. */
const FIRST_FD = 3;

/**
 * The listening socket that whoever started this process has handed over (systemd's socket activation, which libnbd,
 * nbdkit and QEMU use as well); undefined where there is none. It is taken once: what this process starts does not get it.
 *
 * @throws TypeError where there are several
 */
export function takeActivatedSocket(
  env: NodeJS.ProcessEnv = process.env,
  pid = process.pid,
): number | undefined {
  const { LISTEN_PID, LISTEN_FDS } = env;
  // Meant for another process, which has passed its environment on.
  if (LISTEN_FDS === undefined || LISTEN_PID !== String(pid)) return undefined;
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete env[name];
  if (LISTEN_FDS === '1') return FIRST_FD;
  throw new TypeError(`one socket can be handed over, not LISTEN_FDS=${LISTEN_FDS}`);
}
