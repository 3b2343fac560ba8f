/** A file that is made beside its name, among files that somebody else put there beforehand, or puts there meanwhile. */
import fs from 'node:fs';
import { basename, join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import {
  type FileNames,
  fileOperations,
  followed,
  isSamePlace,
  Replacement,
} from '#dist/files/index.js';
import { makeFifo } from '../../support/fifo.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const top = temporaryFolder();
let folder: string;
let name: string;
beforeEach(() => {
  folder = fs.mkdtempSync(join(top, 'test-'));
  name = join(folder, 'disk.raw');
});

const names = () => fs.readdirSync(folder).sort();
const read = (path: string) => fs.readFileSync(path, 'utf8');

function replace(path: string, operations?: FileNames): string[] {
  const file = Replacement.create(path, { operations });
  try {
    fs.writeSync(file.fd, 'new');
    return file.finish();
  } finally {
    file.removeUnfinished();
    file.close();
  }
}

describe('a file that is made', () => {
  it('has a name that nobody can foresee, and is its owner’s alone where it replaces another', () => {
    fs.writeFileSync(name, 'old', { mode: 0o644 });
    const [a, b] = [Replacement.create(name), Replacement.create(name)];
    expect(a.path).not.toBe(b.path);
    expect(basename(a.path)).toMatch(/^disk\.raw\.partial-[0-9a-f]{24}$/);
    expect(fs.statSync(a.path).mode & 0o777).toBe(0o600);
    expect(read(name)).toBe('old');
    a.removeUnfinished();
    b.removeUnfinished();
    expect(names()).toEqual(['disk.raw']);
  });

  it.each<[string, () => void]>([
    ['a symbolic link', () => fs.symlinkSync(join(folder, 'victim'), `${name}.new`)],
    ['a hard link', () => fs.linkSync(join(folder, 'victim'), `${name}.new`)],
    ['a FIFO', () => makeFifo(`${name}.new`)],
    ['a folder', () => fs.mkdirSync(`${name}.new`)],
  ])('leaves %s alone that has a name which it might have had', (_, make) => {
    fs.writeFileSync(join(folder, 'victim'), 'precious');
    make();
    for (const name of ['.partial', '.partial-0123456789abcdef01234567']) {
      fs.symlinkSync('victim', join(folder, `disk.raw${name}`));
    }
    const before = names();
    replace(name);
    expect(names()).toEqual([...before, 'disk.raw'].sort());
    expect(read(join(folder, 'victim'))).toBe('precious');
    expect(read(name)).toBe('new');
  });

  it('is refused where its path is taken, were it by a link', () => {
    fs.writeFileSync(join(folder, 'victim'), 'precious');
    const planned = join(folder, 'planned');
    fs.symlinkSync('victim', planned);
    expect(() => Replacement.create(name, { planned })).toThrow(/EEXIST/);
    expect(read(join(folder, 'victim'))).toBe('precious');
  });

  it.each<[string, () => void, RegExp]>([
    ['a folder', () => fs.mkdirSync(name), /is a folder/],
    ['a FIFO', () => makeFifo(name), /is a named pipe/],
    ['a device', () => fs.symlinkSync('/dev/null', name), /is a device/],
  ])('does not replace %s', (_, make, message) => {
    make();
    expect(() => Replacement.create(name)).toThrow(message);
    expect(names()).toEqual(['disk.raw']);
  });

  it('replaces what links lead to, also where that is not there yet; the links stay', () => {
    fs.mkdirSync(join(folder, 'below'));
    fs.symlinkSync('below/real', join(folder, 'second'));
    fs.symlinkSync('second', name);
    for (const content of ['first', 'again']) {
      replace(name);
      expect(read(join(folder, 'below', 'real')), content).toBe('new');
    }
    expect(fs.readlinkSync(name)).toBe('second');
    expect(fs.readdirSync(join(folder, 'below'))).toEqual(['real']);
  });

  it.each([239, 240, 255])('has a name that fits where its own is %i bytes long', (length) => {
    for (const letter of ['x', 'ä', '😀']) {
      const path = join(folder, letter.repeat(length).slice(0, length));
      let fitting = path;
      while (Buffer.byteLength(basename(fitting)) > length)
        fitting = [...fitting].slice(0, -1).join('');
      replace(fitting);
      expect(read(fitting)).toBe('new');
      const file = Replacement.create(fitting);
      expect(Buffer.byteLength(basename(file.path))).toBeLessThanOrEqual(255);
      file.removeUnfinished();
    }
  });
});

/** Does something at the last moment before a file gets its name, or is removed. */
function meanwhile(deed: (path: string) => void): FileNames {
  return {
    ...fileOperations,
    create: (path, mode) => {
      const fd = fileOperations.create(path, mode);
      deed(path);
      return fd;
    },
  };
}

describe('a name that changes between the making of a file and its end', () => {
  it.each<[string, string | undefined, (path: string) => void]>([
    ['is made', undefined, () => fs.writeFileSync(name, 'theirs')],
    [
      'is replaced',
      'old',
      () => {
        fs.writeFileSync(join(folder, 'other'), 'theirs');
        fs.renameSync(join(folder, 'other'), name);
      },
    ],
    [
      'becomes a link',
      'old',
      () => {
        fs.writeFileSync(join(folder, 'other'), 'theirs');
        fs.rmSync(name);
        fs.symlinkSync('other', name);
      },
    ],
  ])('stays as it is where it %s', (_, old, deed) => {
    if (old !== undefined) fs.writeFileSync(name, old);
    expect(() => replace(name, meanwhile(deed))).toThrow(
      expect.objectContaining({ code: 'ERR_FILE_CHANGED', device: name }),
    );
    expect(read(name)).toBe('theirs');
    expect(names().filter((each) => each.includes('.partial-'))).toEqual([]);
  });

  it('is not taken by a file that was put in the place of the one that was made, which stays', () => {
    let path = '';
    const swap = (made: string) => {
      path = made;
      fs.writeFileSync(join(folder, 'other'), 'theirs');
      fs.renameSync(join(folder, 'other'), made);
    };
    expect(() => replace(name, meanwhile(swap))).toThrow(
      expect.objectContaining({
        code: 'ERR_FILE_CHANGED',
        device: expect.stringMatching('partial-'),
      }),
    );
    expect(read(path)).toBe('theirs');
    expect(fs.existsSync(name)).toBe(false);
  });

  it('is not made anew where it was removed', () => {
    fs.writeFileSync(name, 'old');
    expect(() =>
      replace(
        name,
        meanwhile(() => fs.rmSync(name)),
      ),
    ).toThrow(/was removed/);
    expect(names()).toEqual([]);
  });
});

describe('places', () => {
  it('are the same by links of both kinds, and where nothing is yet', () => {
    fs.writeFileSync(name, 'x');
    fs.linkSync(name, join(folder, 'hard'));
    fs.symlinkSync('disk.raw', join(folder, 'soft'));
    fs.symlinkSync(folder, join(folder, 'here'));
    for (const other of ['hard', 'soft', 'here/disk.raw', './disk.raw']) {
      expect(isSamePlace(name, `${folder}/${other}`), other).toBe(true);
    }
    fs.symlinkSync('not-yet', join(folder, 'dangling'));
    for (const other of ['here/not-yet', 'dangling', '../'.concat(basename(folder), '/not-yet')]) {
      expect(isSamePlace(join(folder, 'not-yet'), `${folder}/${other}`), other).toBe(true);
    }
    expect(isSamePlace(join(folder, 'not-yet'), join(folder, 'nor-this'))).toBe(false);
    expect(isSamePlace(name, join(folder, 'nor-this'))).toBe(false);
  });

  it('that are not UTF-8 are refused, and no other file is taken for them', () => {
    const odd = Buffer.concat([Buffer.from(`${folder}/`), Buffer.from([0xff])]);
    fs.writeFileSync(odd, 'theirs');
    fs.symlinkSync(Buffer.from([0xff]), name);
    expect(() => followed(name)).toThrow(/not valid UTF-8/);
    expect(() => replace(name)).toThrow(/not valid UTF-8/);
    expect(fs.readFileSync(odd, 'utf8')).toBe('theirs');
  });

  it('in a circle of links are refused', () => {
    fs.symlinkSync('b', join(folder, 'a'));
    fs.symlinkSync('a', join(folder, 'b'));
    expect(() => followed(join(folder, 'a'))).toThrow(expect.objectContaining({ code: 'ELOOP' }));
  });
});
