export { CopyJob, copy } from './job.js';
export {
  StreamJob,
  type StreamProgress,
  type StreamReport,
  type StreamState,
} from './stream-job.js';
