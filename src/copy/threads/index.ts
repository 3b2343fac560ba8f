export { freeArena, takeArena } from './arenas.js';
export { chooseThreads } from './choose-threads.js';
export type { CrewOutcome } from './crew.js';
