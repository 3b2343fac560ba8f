export { LibvirtMachine, type LibvirtMachineOptions } from './libvirt-machine.js';
export type { DomainPlan } from './plan.js';
