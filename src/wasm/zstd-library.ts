type Library = typeof import('@bokuweb/zstd-wasm');

let library: Promise<Library> | undefined;

/** The zstd of this thread. It must be initialized only once: a second time would swap its memory under its calls. */
export function zstdLibrary(): Promise<Library> {
  library ??= load();
  return library;
}

async function load(): Promise<Library> {
  const loaded = await import('@bokuweb/zstd-wasm');
  await loaded.init();
  return loaded;
}
