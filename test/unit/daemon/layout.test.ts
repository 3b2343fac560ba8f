import { describe, expect, it } from 'vitest';
import { BOX_WIDTH, layOut } from '../../../src/daemon/watch/page/layout.js';

/** A layout of links that are written `from>to`, with the boxes in this order. */
function laidOut(boxes: string, links: string, tops: string) {
  const list = links.split(' ').map((link) => {
    const [from, to] = link.split('>');
    return { from, to };
  });
  return layOut(boxes.split(' '), list, new Set(tops.split(' ')));
}

describe('the picture of a graph', () => {
  it('has each box below all that use it, and exports and jobs at the top', () => {
    const links = 'guest>filter job>disk filter>disk disk>file disk>base base>base.file';
    const { places } = laidOut('file base base.file disk filter guest job', links, 'guest job');
    const y = (name: string) => places.get(name)!.y;
    expect(y('guest')).toBe(y('job'));
    for (const link of links.split(' ')) {
      const [from, to] = link.split('>');
      expect(y(from), link).toBeLessThan(y(to));
    }
  });

  it('lays no box over another, however many there are', () => {
    const names = Array.from({ length: 40 }, (_, i) => `n${i}`);
    const links = names.slice(1).map((name, i) => `${names[i % 7]}>${name}`);
    const { places, width } = laidOut(names.join(' '), links.join(' '), 'n0');
    const all = [...places.values()];
    for (const a of all) {
      expect(a.x - BOX_WIDTH / 2).toBeGreaterThanOrEqual(0);
      expect(a.x + BOX_WIDTH / 2).toBeLessThanOrEqual(width);
      const near = all.filter((b) => a !== b && a.y === b.y && Math.abs(a.x - b.x) < BOX_WIDTH);
      expect(near).toEqual([]);
    }
  });

  it('crosses no lines where that can be avoided', () => {
    const { places } = laidOut('a b x y', 'a>y b>x', 'a b');
    const x = (name: string) => places.get(name)!.x;
    expect(x('a') < x('b')).toBe(x('y') < x('x'));
  });

  it('leads a line that passes a layer around the boxes in it', () => {
    const { edges, places } = laidOut('guest a b c', 'guest>a a>b b>c a>c', 'guest');
    const long = edges.find(({ from, to }) => from === 'a' && to === 'c')!;
    expect(long.points).toHaveLength(3);
    expect(Math.abs(long.points[1][0] - places.get('b')!.x)).toBeGreaterThan(BOX_WIDTH / 2);
  });

  it('is made of nothing where there is nothing, and of nodes alone where nobody uses them', () => {
    expect(layOut([], [], new Set()).places.size).toBe(0);
    const { places } = layOut(['a', 'b'], [], new Set());
    expect(places.get('a')!.y).toBe(places.get('b')!.y);
  });
});
