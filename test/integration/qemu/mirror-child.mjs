// One mirror in a process of its own, which a test may stop or kill. Its argument is JSON: how the machine is reached, and the
// options of the mirror. It prints its phases, and ends the mirror when its standard input ends.
import { Machine } from 'lacuna/qemu';

const { machine: options, mirror } = JSON.parse(process.argv[2]);
const machine = await Machine.connect(options);
const job = machine.mirror(mirror);
process.stdin.resume().on('end', () => job.stop());
let last;
job.on('progress', ({ phase }) => {
  if (phase !== last) console.log(phase);
  last = phase;
});
const report = await job;
console.log(JSON.stringify(report));
await machine.close();
process.exit(0);
