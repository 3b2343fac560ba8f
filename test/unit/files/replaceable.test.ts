import { describe, expect, it } from 'vitest';
import { checkReplaceable, type ReplaceableOperations } from '#dist/files/replaceable.js';

const OWNER = 1000;
const FREE: ReplaceableOperations = {
  mountPoints: () => ['/', '/srv'],
  sealOf: () => undefined,
  statFolder: () => ({ mode: 0o40755, uid: 0 }),
  user: () => 1001,
};

function refusal(change: Partial<ReplaceableOperations>): unknown {
  try {
    return checkReplaceable('/srv/disk.raw', OWNER, { ...FREE, ...change });
  } catch (error) {
    return error;
  }
}

describe('a file that another one is to replace', () => {
  it('is free, as a rule', () => {
    expect(refusal({})).toBeUndefined();
  });

  it('is refused where something is mounted on it', () => {
    expect(refusal({ mountPoints: () => ['/', '/srv/disk.raw'] })).toMatchObject({
      code: 'ERR_DEVICE_OPEN',
      errno: 'EBUSY',
      message: 'Cannot replace /srv/disk.raw: something is mounted there',
    });
  });

  it.each(['immutable', 'append'] as const)(
    'is refused where it, or its folder, is sealed: %s',
    (seal) => {
      for (const sealed of ['/srv', '/srv/disk.raw']) {
        const error = refusal({ sealOf: (path) => (path === sealed ? seal : undefined) });
        expect(error).toMatchObject({ code: 'ERR_DEVICE_OPEN', errno: 'EPERM' });
      }
    },
  );

  it("is refused where it is another user's, in a folder where everybody keeps their own", () => {
    const sticky = (uid: number) => () => ({ mode: 0o41777, uid });
    expect(refusal({ statFolder: sticky(0) })).toMatchObject({ errno: 'EPERM' });
    expect(refusal({ statFolder: sticky(0), user: () => OWNER })).toBeUndefined();
    expect(refusal({ statFolder: sticky(1001) })).toBeUndefined();
    expect(refusal({ statFolder: sticky(0), user: () => 0 })).toBeUndefined();
  });
});
