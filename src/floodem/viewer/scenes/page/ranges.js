// Byte ranges where the server has none: a fetch with a Range header in, the asked bytes out.
//
// The client reads multi-resolution meshes by ranges. Plain servers (python -m http.server)
// answer these with the whole file; here it is cut. Loaded by the page and by its worker.
"use strict";
(() => {
  const KEPT_BYTES = 128 * 2 ** 20; // of whole files, so that each is fetched once
  const plainFetch = self.fetch.bind(self);
  const answers = new Map(); // origin -> promise of whether its server answers ranges
  const kept = new Map(); // address -> promise of bytes; the one used last comes last
  const sizes = new Map(); // address -> number of bytes, when they have come

  function parseRange(options) {
    const text = new Headers(options?.headers).get("range");
    const match = /^bytes=(\d+)-(\d+)$/.exec(text ?? "");
    return match === null ? null : { first: Number(match[1]), last: Number(match[2]) };
  }

  function answersRanges(address) {
    const { origin } = new URL(address);
    if (!answers.has(origin)) {
      const asking = (async () => {
        const response = await plainFetch(address, { headers: { range: "bytes=0-0" } });
        response.body?.cancel();
        // A missing file says nothing about the others.
        if (response.status !== 200 && response.status !== 206) answers.delete(origin);
        return response.status !== 200;
      })();
      asking.catch(() => answers.delete(origin));
      answers.set(origin, asking);
    }
    return answers.get(origin);
  }

  function forgetOldest() {
    let total = 0;
    for (const size of sizes.values()) total += size;
    for (const address of kept.keys()) {
      if (total <= KEPT_BYTES) return;
      if (!sizes.has(address)) continue;
      total -= sizes.get(address);
      sizes.delete(address);
      kept.delete(address);
    }
  }

  function readWhole(address) {
    const reading =
      kept.get(address) ??
      (async () => {
        const response = await plainFetch(address);
        if (!response.ok) return { response };
        const bytes = new Uint8Array(await response.arrayBuffer());
        sizes.set(address, bytes.length);
        forgetOldest();
        return { response, bytes };
      })();
    reading.catch(() => kept.delete(address));
    kept.delete(address);
    kept.set(address, reading);
    return reading;
  }

  function cut(bytes, range, address) {
    if (range.first >= bytes.length) return answer(null, { status: 416 }, address);
    const last = Math.min(range.last, bytes.length - 1);
    const headers = { "content-range": `bytes ${range.first}-${last}/${bytes.length}` };
    return answer(bytes.subarray(range.first, last + 1), { status: 206, headers }, address);
  }

  function answer(body, options, address) {
    // A response that a script makes has no address, and the client looks at it.
    return Object.defineProperty(new Response(body, options), "url", { value: address });
  }

  self.fetch = async (resource, options) => {
    const range = resource instanceof Request ? null : parseRange(options);
    if (range === null) return plainFetch(resource, options);
    const address = new URL(resource, self.location.href).href;
    if (await answersRanges(address)) return plainFetch(resource, options);
    const { response, bytes } = await readWhole(address);
    if (bytes === undefined) {
      kept.delete(address);
      return answer(null, { status: response.status }, address);
    }
    return cut(bytes, range, address);
  };
})();
