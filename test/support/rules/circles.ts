import { importsOf, type SourceTree } from './source-tree.js';

/** Files that import each other, as one sentence for the first circle that is met. */
export function findCircles(tree: SourceTree): string[] {
  const imports = new Map([...tree].map(([file, text]) => [file, importsOf(file, text)]));
  const circle = findCircle(imports);
  if (circle === undefined) return [];
  return [`${circle.join(' -> ')}: files that import each other cannot be understood alone`];
}

/** The first circle that a walk in depth meets, as a path from a file back to itself. */
function findCircle(imports: ReadonlyMap<string, readonly string[]>): string[] | undefined {
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]): string[] | undefined => {
    const seen = path.indexOf(file);
    if (seen !== -1) return [...path.slice(seen), file];
    if (done.has(file)) return undefined;
    for (const target of imports.get(file) ?? []) {
      const circle = visit(target, [...path, file]);
      if (circle !== undefined) return circle;
    }
    done.add(file);
    return undefined;
  };
  for (const file of imports.keys()) {
    const circle = visit(file, []);
    if (circle !== undefined) return circle;
  }
  return undefined;
}
