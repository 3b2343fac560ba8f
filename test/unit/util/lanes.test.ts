import { setImmediate } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { Lanes, type LaneWork } from '#dist/util/index.js';

/** Counts the steps that are under way, and the most that ever were. */
class Load {
  now = 0;
  most = 0;

  async during(work: () => Promise<unknown> = () => setImmediate()): Promise<void> {
    this.now++;
    this.most = Math.max(this.most, this.now);
    try {
      await work();
    } finally {
      this.now--;
    }
  }
}

/** Something that a test lets happen when it wants. */
function gate(): { opened: Promise<void>; open: () => void; fail: (error: Error) => void } {
  let open = () => {};
  let fail: (error: Error) => void = () => {};
  const opened = new Promise<void>((resolve, reject) => {
    open = resolve;
    fail = reject;
  });
  return { opened, open, fail };
}

function run<Lane>(work: LaneWork<Lane>): Promise<void> {
  return new Lanes().run(work);
}

describe('lanes', () => {
  it.each([1, 3, 16])('do all steps, %i at a time', async (count) => {
    const load = new Load();
    const all = gate();
    const done: number[] = [];
    let next = 0;
    await run({
      count,
      step: async () => {
        const item = next++;
        if (item >= 50) return false;
        await load.during(() => {
          if (load.now === count) all.open();
          return all.opened;
        });
        done.push(item);
        return true;
      },
    });
    expect(done.sort((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, i) => i));
    expect([load.most, load.now]).toEqual([count, 0]);
  });

  it('each have something to themselves, which is given back as it has become', async () => {
    const closed: string[] = [];
    let opened = 0;
    let left = 6;
    await run({
      count: 3,
      open: () => ({ name: `lane ${opened++}` }),
      close: ({ name }) => closed.push(name),
      step: async (lane) => {
        lane.name += '.';
        await setImmediate();
        return left-- > 0;
      },
    });
    expect(opened).toBe(3);
    expect(closed.map((name) => name.replaceAll('.', '')).sort()).toEqual([
      'lane 0',
      'lane 1',
      'lane 2',
    ]);
    expect(closed.join('').split('.').length - 1).toBe(9);
  });

  it('make no step where not all of them can be opened', async () => {
    const closed: number[] = [];
    let opened = 0;
    let steps = 0;
    const work = run({
      count: 3,
      open: () => {
        if (opened === 2) throw new Error('no memory');
        return opened++;
      },
      close: (lane) => closed.push(lane),
      step: async () => {
        steps++;
        return false;
      },
    });
    await expect(work).rejects.toThrow('no memory');
    expect([closed, steps]).toEqual([[0, 1], 0]);
  });

  it('tell what failed first, when the others have ended their steps, and begin no more', async () => {
    const gates = [gate(), gate(), gate()];
    let begun = 0;
    let settled = false;
    const closed: number[] = [];
    const work = run({
      count: 3,
      open: () => begun,
      close: () => closed.push(1),
      step: async () => {
        await gates[begun++].opened;
        return true;
      },
    }).finally(() => {
      settled = true;
    });
    work.catch(() => {});
    await setImmediate();
    gates[1].fail(new Error('first'));
    await setImmediate();
    expect(settled).toBe(false);
    gates[0].fail(new Error('second'));
    gates[2].open();
    await expect(work).rejects.toThrow('first');
    expect([begun, closed.length]).toEqual([3, 3]);
  });

  it('fail where what a lane had cannot be given back, and end all the same', async () => {
    let open = 0;
    const work = run({
      count: 3,
      open: () => open++,
      close: () => {
        open--;
        throw new Error('it is locked');
      },
      step: async () => false,
    });
    await expect(work).rejects.toThrow('it is locked');
    expect(open).toBe(0);
  });

  it('that cannot all be opened close each of those that were, whatever that throws', async () => {
    const closed: number[] = [];
    let opened = 0;
    const work = run({
      count: 3,
      open: () => {
        if (opened === 2) throw new Error('no memory');
        return opened++;
      },
      close: (lane) => {
        closed.push(lane);
        throw new Error('it is locked');
      },
      step: async () => false,
    });
    await expect(work).rejects.toThrow('no memory');
    expect(closed).toEqual([0, 1]);
  });

  it('fail as a step does that throws at once', async () => {
    const step = () => {
      throw new Error('at once');
    };
    await expect(run({ count: 2, step })).rejects.toThrow('at once');
  });

  it('become more and fewer while they run, never by too many', async () => {
    let count = 2;
    let open = 0;
    const seen: number[] = [];
    await run({
      count: () => count,
      open: () => open++,
      close: () => open--,
      step: async () => {
        seen.push(open);
        if (seen.length === 20) count = 8;
        if (seen.length === 100) count = 3;
        await setImmediate();
        return seen.length < 160;
      },
    });
    // Of eight lanes five end, each as it ends its step: not one of them begins another one.
    expect(seen.slice(0, 20)).toEqual(Array(20).fill(2));
    expect(seen.slice(30, 100)).toEqual(Array(70).fill(8));
    expect(seen.slice(108, 150)).toEqual(Array(42).fill(3));
    expect([Math.max(...seen), open]).toEqual([8, 0]);
  });

  it('go on as they are where there is no room for more', async () => {
    const load = new Load();
    const crowded: number[] = [];
    let count = 2;
    let opened = 0;
    const closed: number[] = [];
    let steps = 0;
    await run({
      count: () => count,
      open: () => {
        if (opened - closed.length >= 3) throw new Error('no memory');
        return opened++;
      },
      close: (lane) => closed.push(lane),
      crowded: (running) => {
        crowded.push(running);
        count = running;
      },
      step: async () => {
        steps++;
        if (steps === 10) count = 4;
        await load.during();
        return steps < 40;
      },
    });
    expect([crowded, load.most]).toEqual([[2], 2]);
    // The third was opened for the fourth's sake, and closed when that one could not be.
    expect(closed).toHaveLength(3);
  });

  it('fail where there is no room for more and nobody wants to hear of it', async () => {
    let count = 1;
    let opened = 0;
    const work = run({
      count: () => count,
      open: () => {
        if (++opened > 1) throw new Error('no memory');
      },
      step: async () => {
        count = 2;
        await setImmediate();
        return true;
      },
    });
    await expect(work).rejects.toThrow('no memory');
  });

  it('let timers fire, though no step waits for anything', async () => {
    let fired = false;
    setTimeout(() => {
      fired = true;
    }, 1);
    await run({ count: 2, step: async () => !fired });
    expect(fired).toBe(true);
  });
});

describe('work that is started one by one', () => {
  it('waits for room where too much runs', async () => {
    const lanes = new Lanes();
    const load = new Load();
    for (let i = 0; i < 20; i++) {
      await lanes.room(4);
      lanes.start(() => load.during());
      expect(lanes.running).toBeLessThanOrEqual(4);
    }
    await lanes.idle();
    expect([load.most, load.now, lanes.running]).toEqual([4, 0, 0]);
  });

  it('finds no room behind a failure, and is idle only when all has ended', async () => {
    const lanes = new Lanes();
    const slow = gate();
    let ended = false;
    lanes.start(async () => {
      await slow.opened;
      ended = true;
    });
    lanes.start(async () => {
      throw new Error('broken');
    });
    await expect(lanes.room(1)).rejects.toThrow('broken');
    await expect(lanes.room(9)).rejects.toThrow('broken');
    expect(lanes.failure?.error).toEqual(new Error('broken'));
    const idle = lanes.idle();
    idle.catch(() => {});
    await setImmediate();
    expect(ended).toBe(false);
    slow.open();
    await expect(idle).rejects.toThrow('broken');
    expect(ended).toBe(true);
  });

  it('is idle at once where nothing was started', async () => {
    await new Lanes().idle();
  });
});
