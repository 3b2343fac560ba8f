import type { SeriesTable } from '../meters/index.js';
import { BUCKETS } from '../meters/index.js';
import type { Prometheus } from './load-client.js';

/** What a histogram is called, and which label tells the place. */
export interface HistogramNames {
  readonly name: string;
  readonly help: string;
  readonly place: string;
}

/** A histogram of durations that were counted elsewhere: a request must cost next to nothing. */
export function countedHistogram(
  { name, help, place }: HistogramNames,
  table: SeriesTable,
): InstanceType<Prometheus['Histogram']> {
  const get = async () => ({ name, help, type: 'histogram', values: valuesOf(name, place, table) });
  // What a registry asks of its metrics.
  return { name, get } as never;
}

function valuesOf(name: string, place: string, table: SeriesTable) {
  const values: { metricName: string; labels: Record<string, string | number>; value: number }[] =
    [];
  for (const [key, operations] of table.places) {
    for (const [operation, { requests, seconds, buckets }] of operations) {
      const labels = { [place]: key, operation };
      let sum = 0;
      for (const [i, le] of BUCKETS.entries()) {
        sum += buckets[i];
        values.push({ metricName: `${name}_bucket`, labels: { ...labels, le }, value: sum });
      }
      values.push({
        metricName: `${name}_bucket`,
        labels: { ...labels, le: '+Inf' },
        value: requests,
      });
      values.push({ metricName: `${name}_sum`, labels, value: seconds });
      values.push({ metricName: `${name}_count`, labels, value: requests });
    }
  }
  return values;
}
