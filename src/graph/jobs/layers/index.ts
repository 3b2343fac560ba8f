export { nameFor } from './backing-name.js';
export { type Layers, layersBetween, layersDownTo, refuseHeld, refuseSnapshots } from './chain.js';
export { drop } from './drop.js';
export { type Piece, planLayers } from './layer-plan.js';
export { movePieces, type PieceFailure } from './move-pieces.js';
