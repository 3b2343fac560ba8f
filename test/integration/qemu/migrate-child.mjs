// One migration in a process of its own, which a test may kill at any step. Its argument is JSON: how the source is reached, and
// the options of the migration.
import { Machine } from 'lacuna/qemu';

const { machine: options, migrate } = JSON.parse(process.argv[2]);
const machine = await Machine.connect(options);
await machine.migrate(migrate);
await machine.close();
process.exit(0);
