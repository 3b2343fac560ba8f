export { type DiskChoice, type MachineDisk, takeInventory } from './disks.js';
export { busyBitmaps, type DiskPlan, planDisks } from './plan.js';
