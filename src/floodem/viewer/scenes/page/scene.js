// Opens a scene in the client beside this file: ../../scene.json in, a running viewer out.
//
// The client was built to take its state from a server in Python and to send changes there.
// Here there is none: this script hands it the state, and keeps changes behind the # of the
// address, so that they last when the page is loaded again and go along with a link. (The client
// can do that itself, but loses layers of points on slow machines: it writes the address while it
// still builds them.)
"use strict";
(() => {
  const here = new URL("./", document.baseURI); // .../v/scene/
  const root = new URL("../../", here);
  const PRECOMPUTED = "precomputed://";
  const ROOT = "{scene}/"; // stands for the address of the folder in links, which may be moved
  const WRITE_AFTER_MS = 200;

  let state = null;
  let source = null; // the client's EventSource
  let generation = 0;
  let writing = 0;
  let isLinked = false; // whether the page was opened with a state behind the #

  function absolute(name) {
    if (Array.isArray(name)) return name.map(absolute);
    if (typeof name === "object") return { ...name, url: absolute(name.url) };
    if (!name.startsWith(PRECOMPUTED)) return name; // local://annotations
    return PRECOMPUTED + new URL(name.slice(PRECOMPUTED.length), root).href;
  }

  async function readScene() {
    const response = await fetch(new URL("scene.json", root), { cache: "no-cache" });
    if (!response.ok) throw new Error(`scene.json: ${response.status} ${response.statusText}`);
    const { state: first } = await response.json();
    const layers = first.layers.map((layer) => ({ ...layer, source: absolute(layer.source) }));
    return { ...first, layers };
  }

  function readAddress() {
    const text = decodeURIComponent(location.hash);
    return text.startsWith("#!{") ? JSON.parse(text.slice(2).replaceAll(ROOT, root.href)) : null;
  }

  function writeAddress() {
    const text = JSON.stringify(state).replaceAll(root.href, ROOT);
    history.replaceState(null, "", "#!" + encodeURIComponent(text));
  }

  function handOver() {
    const data = JSON.stringify({ k: "s", g: String(++generation), s: state });
    source?.onmessage?.(new MessageEvent("message", { data }));
  }

  function takeOver(body) {
    state = JSON.parse(body).s;
    clearTimeout(writing);
    writing = setTimeout(writeAddress, WRITE_AFTER_MS);
    const answer = JSON.stringify({ g: String(++generation) });
    return new Response(answer, { headers: { "content-type": "application/json" } });
  }

  function standInForServer() {
    window.EventSource = class extends EventTarget {
      constructor() {
        super();
        source = this;
        setTimeout(() => {
          this.onopen?.(new Event("open"));
          handOver();
          if (isLinked) writeAddress();
        }, 0);
      }
      close() {}
    };
    const fetchData = window.fetch;
    const stateWay = new URL("state/scene", root).href;
    const ways = ["action", "credentials", "socket", "volume_response"].map(
      (name) => new URL(`${name}/scene`, root).href,
    );
    window.fetch = async (resource, options) => {
      const address = resource instanceof Request ? resource.url : new URL(resource, here).href;
      if (address === stateWay) return takeOver(options.body);
      if (ways.some((way) => address.startsWith(way))) return new Response("{}", { status: 404 });
      return fetchData(resource, options);
    };
  }

  function giveWorkersRanges() {
    const PlainWorker = window.Worker;
    window.Worker = class extends PlainWorker {
      constructor(script, options) {
        const address = new URL(script, here);
        const isOurs = address.href.startsWith(here.href);
        const name = encodeURIComponent(address.pathname.split("/").pop());
        super(isOurs ? new URL(`worker.js?script=${name}`, here) : script, options);
      }
    };
  }

  function say(sentences) {
    const box = document.createElement("main");
    box.style.cssText = "max-width: 40em; margin: 4em auto; font: 16px/1.5 sans-serif; color: #eee";
    for (const sentence of sentences) {
      box.append(Object.assign(document.createElement("p"), { textContent: sentence }));
    }
    document.body.replaceChildren(box);
  }

  function loadClient() {
    const names = document.querySelector("meta[name=client]").content.split(" ");
    for (const name of names) {
      const script = Object.assign(document.createElement("script"), { src: name, async: false });
      script.onerror = () => say([`${name} is missing in this folder: make the scene again.`]);
      document.head.append(script);
    }
  }

  async function open() {
    standInForServer();
    giveWorkersRanges();
    const given = readAddress();
    state = given ?? (await readScene());
    isLinked = given !== null;
    // With a state in the address the client would read and write it itself.
    history.replaceState(null, "", location.pathname + location.search);
    loadClient();
    window.addEventListener("hashchange", () => {
      state = readAddress() ?? state;
      handOver();
    });
  }

  open().catch((error) => say(["This scene cannot be opened.", String(error)]));
})();
