import fs from 'node:fs';

/** What QEMU is called where it belongs to somebody else, whose files cannot be seen. */
const MAY_BE_QEMU = /^(qemu|kvm)/;

/**
 * The processes of this host, but for this one, that have one of these files open, or may have: those of other users do not show
 * their files. None where the system has no /proc, and none of another user's where that is mounted with hidepid.
 */
export function holdersOf(files: readonly string[]): number[] {
  const wanted = new Set(files.map((file) => identityOf(file)));
  return processes().filter((pid) => pid !== process.pid && holds(pid, wanted));
}

function processes(): number[] {
  try {
    return fs
      .readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map(Number);
  } catch {
    return [];
  }
}

function holds(pid: number, wanted: ReadonlySet<string>): boolean {
  const folder = `/proc/${pid}/fd`;
  try {
    return fs.readdirSync(folder).some((fd) => wanted.has(tolerantIdentity(`${folder}/${fd}`)));
  } catch (error) {
    // One that has ended meanwhile has nothing open.
    return (error as NodeJS.ErrnoException).code === 'EACCES' && MAY_BE_QEMU.test(nameOf(pid));
  }
}

function nameOf(pid: number): string {
  try {
    return fs.readFileSync(`/proc/${pid}/comm`, 'utf8');
  } catch {
    return '';
  }
}

function tolerantIdentity(path: string): string {
  try {
    return identityOf(path);
  } catch (error) {
    // Root in a container may list the files of other users, and not look at them.
    if ((error as NodeJS.ErrnoException).code === 'EACCES') throw error;
    return 'closed';
  }
}

function identityOf(path: string): string {
  const { dev, ino } = fs.statSync(path, { bigint: true });
  return `${dev}:${ino}`;
}
