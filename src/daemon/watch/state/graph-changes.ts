import type { GraphPicture } from '../../../graph/index.js';

/** What has changed between two looks at a graph, in words. */
export function graphChanges(before: GraphPicture, after: GraphPicture): string[] {
  return [
    ...told(names(before.nodes, 'node'), names(after.nodes, 'node')),
    ...told(
      before.users.map(({ kind, name }) => `${kind} ${name}`),
      after.users.map(({ kind, name }) => `${kind} ${name}`),
    ),
    ...moved(before, after),
    ...told(bitmapsOf(before), bitmapsOf(after)),
  ];
}

function names(list: readonly { readonly name: string }[], what: string): string[] {
  return list.map(({ name }) => `${what} ${name}`);
}

function bitmapsOf({ nodes }: GraphPicture): string[] {
  return nodes.flatMap((node) => node.bitmaps.map(({ name }) => `bitmap ${name} of ${node.name}`));
}

function told(before: readonly string[], after: readonly string[]): string[] {
  const [was, is] = [new Set(before), new Set(after)];
  return [
    ...after.filter((one) => !was.has(one)).map((one) => `${one} was added`),
    ...before.filter((one) => !is.has(one)).map((one) => `${one} was removed`),
  ];
}

/** Who uses another node than before. */
function moved(before: GraphPicture, after: GraphPicture): string[] {
  const led = new Map(before.edges.map(({ parent, child, node }) => [`${parent} ${child}`, node]));
  return after.edges.flatMap(({ parent, child, node }) => {
    const was = led.get(`${parent} ${child}`);
    return was === undefined || was === node
      ? []
      : [`${parent} uses ${node} in place of ${was}${child === 'root' ? '' : ` as its ${child}`}`];
  });
}
