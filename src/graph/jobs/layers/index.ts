export { nameFor } from './backing-name.js';
export { type Layers, layersBetween, layersDownTo, refuseHeld, refuseSnapshots } from './chain.js';
export { chainBetween, drop } from './drop.js';
export { heldInLayers, planLayers } from './layer-plan.js';
