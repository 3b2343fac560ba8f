export { loadPrometheus } from './load-client.js';
export { Metrics } from './metrics.js';
