import { fstatSync, readFileSync } from 'node:fs';

/** The path of a Unix socket that somebody else has bound; undefined where it has none, or the system does not tell. */
export function socketPathOf(fd: number): string | undefined {
  try {
    const inode = String(fstatSync(fd).ino);
    for (const line of readFileSync('/proc/net/unix', 'utf8').split('\n')) {
      // Num RefCount Protocol Flags Type St Inode Path
      const match = /^\S+: \S+ \S+ \S+ \S+ \S+ +(\d+) (\/.*)$/.exec(line);
      if (match?.[1] === inode) return match[2];
    }
  } catch {
    // There is no such descriptor, or no such file.
  }
  return undefined;
}
