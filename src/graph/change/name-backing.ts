import { type Changer, called, conflict, formatBelow, usersNeed } from '../core/index.js';

/** Changes how an image names its backing file; see `Graph.nameBacking`. Its format is that of the node below it. */
export async function nameBacking(changer: Changer, name: string, filename: string): Promise<void> {
  const { state } = changer;
  const node = state.node(name);
  const below = state.view.backingOf(node)?.to;
  if (below === undefined || node.driver.nameBacking === undefined) {
    throw conflict(`${called(node)} has no backing file whose name could be changed`);
  }
  const format = formatBelow(state.view, below) ?? node.device.details?.backingFormat;
  if (format === undefined) {
    throw conflict(`the format of ${called(below)} is none that an image can name`);
  }
  const wasWritable = node.writable;
  const isWritten = usersNeed(node, state.view).includes('write');
  await changer.setWritable(node, true);
  try {
    const backing = { filename, format };
    node.driver.checkBackingName?.(backing);
    await node.device.flush();
    await node.driver.nameBacking(backing);
  } finally {
    if (!wasWritable && !isWritten) await changer.setWritable(node, false);
  }
}
