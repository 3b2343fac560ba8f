export { Meters } from './meters.js';
export { BUCKETS, type SeriesTable } from './series.js';
