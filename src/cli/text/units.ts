import prettyBytes from 'pretty-bytes';

/** Bytes for people: `1.5 GiB`. */
export function formatBytes(bytes: number): string {
  return prettyBytes(bytes, { binary: true });
}

/** A share for people: never `0 %` for something, and never `100 %` for less than all. */
export function formatShare(part: number, whole: number): string {
  if (whole === 0) return '0 %';
  const percent = (part / whole) * 100;
  if (part > 0 && percent < 0.01) return '< 0.01 %';
  if (part < whole && percent > 99.99) return '> 99.99 %';
  return `${Number(percent.toFixed(2))} %`;
}

/** A duration for people: `350 ms`, `4.2 s`, `3 min 20 s`, `2 h 5 min`. */
export function formatDuration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** A rate for people; nothing can be said of no time at all. */
export function formatRate(bytes: number, ms: number): string {
  return ms > 0 ? `${formatBytes((bytes / ms) * 1000)}/s` : '-';
}
