export {
  checkPopulateOptions,
  type MachineBitmap,
  type MachinePopulateOptions,
  type PopulateTarget,
} from './options.js';
export { type MachinePopulateReport, type PopulatedBitmap, populateMachine } from './populate.js';
