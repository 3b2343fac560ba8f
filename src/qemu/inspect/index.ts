export {
  type DiskChoice,
  type DiskInfo,
  describeBitmaps,
  type MachineDisk,
  takeInventory,
} from './disks.js';
export { busyBitmaps, type DiskPlan, type PlannedDisk, planDisks } from './plan.js';
