// One populate in a process of its own, which a test may kill at any step. Its argument is JSON: how the machine is reached, and
// the options of the populate.
import { Machine } from 'lacuna/qemu';

const { machine: options, populate } = JSON.parse(process.argv[2]);
const machine = await Machine.connect(options);
await machine.populate(populate);
await machine.close();
process.exit(0);
