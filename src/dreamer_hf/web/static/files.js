// Files of the site: downloaded with progress, checked, and kept in the browser's cache under their SHA-256.

const CACHE_NAME = "dreamer-files";

export class DownloadError extends Error {}

export class Files {
  // folder: URL of the site. entries: of site.json, {name: {size, sha256, gzip}}.
  // onProgress(loaded, total): bytes of the files that were asked for.
  constructor(folder, entries, onProgress) {
    Object.assign(this, { folder, entries, onProgress });
    this.loaded = this.total = 0;
  }

  // Announces files, so that the progress counts all of them from the start.
  expect(names) {
    this.total += names.reduce((sum, name) => sum + this.entries[name].size, 0);
  }

  // Returns a Uint8Array, unpacked.
  async read(name) {
    const entry = this.entries[name];
    const cache = await openCache();
    const key = this.#key(name);
    const kept = await cache?.match(key);
    const bytes = kept ? new Uint8Array(await kept.arrayBuffer()) : await this.#download(name, entry);
    if (kept) this.#advance(bytes.length);
    else await cache?.put(key, new Response(bytes)).catch(() => {}); // a full disk only costs the next visit time
    return entry.gzip ? unzip(bytes) : bytes;
  }

  // Deletes what earlier versions of this site have left in the cache.
  async forgetOthers() {
    const cache = await openCache();
    const wanted = new Set(Object.keys(this.entries).map((name) => this.#key(name)));
    for (const { url } of (await cache?.keys()) ?? []) {
      if (url.startsWith(this.folder) && !wanted.has(url)) await cache.delete(url);
    }
  }

  #key(name) {
    return new URL(`${name}?sha256=${this.entries[name].sha256}`, this.folder).href;
  }

  // Nothing is kept before all bytes are there and are the right ones.
  async #download(name, { size, sha256 }) {
    const response = await fetchOrFail(new URL(name, this.folder));
    const bytes = new Uint8Array(size);
    let length = 0;
    try {
      for (const reader = response.body.getReader(); ; ) {
        const { done, value } = await reader.read();
        if (done) break;
        if (length + value.length <= size) bytes.set(value, length);
        length += value.length;
        this.#advance(value.length);
      }
    } catch {
      throw new DownloadError("The connection was lost during the download: try again.");
    }
    if (length < size) throw new DownloadError("The connection was lost during the download: try again.");
    if (length > size || !(await matches(bytes, sha256))) {
      throw new DownloadError(`${name} is not the file that this page was made with: export the whole site again.`);
    }
    return bytes;
  }

  #advance(count) {
    this.loaded += count;
    this.onProgress(this.loaded, this.total);
  }
}

export async function readJson(url) {
  try {
    return await (await fetchOrFail(url)).json();
  } catch (error) {
    if (error instanceof DownloadError) throw error;
    throw new DownloadError(`${url.pathname.split("/").at(-1)} cannot be read: export the site again.`);
  }
}

async function fetchOrFail(url) {
  const name = url.pathname.split("/").at(-1);
  let response;
  try {
    response = await fetch(url, { cache: "no-cache" });
  } catch {
    throw new DownloadError("The connection was lost during the download: try again.");
  }
  if (!response.ok) throw new DownloadError(`${name} could not be downloaded (status ${response.status}): try again.`);
  return response;
}

// Caches and digests exist in secure contexts only: https, and http on this machine.
function openCache() {
  return self.caches?.open(CACHE_NAME).catch(() => undefined);
}

async function matches(bytes, sha256) {
  if (!self.crypto?.subtle) return true;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("") === sha256;
}

async function unzip(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
