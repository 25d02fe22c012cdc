// Opens a scene in the client beside this file: ../../scene.json in, a running viewer out.
//
// The client was built to talk with a server in Python. Here there is none: what it would send
// there goes nowhere. Sources in scene.json are relative to its folder; the client wants them
// absolute.
"use strict";
(() => {
  const here = new URL("./", document.baseURI); // .../v/scene/
  const root = new URL("../../", here);
  const PRECOMPUTED = "precomputed://";

  function silenceServer() {
    window.EventSource = class extends EventTarget {
      constructor() {
        super();
        setTimeout(() => this.onopen?.(new Event("open")), 0);
      }
      close() {}
    };
    const fetchData = window.fetch;
    const names = ["action", "credentials", "events", "socket", "state", "volume_response"];
    const ways = names.map((name) => new URL(`${name}/scene`, root).href);
    window.fetch = (resource, options) => {
      const address = resource instanceof Request ? resource.url : new URL(resource, here).href;
      if (ways.some((way) => address.startsWith(way))) {
        return Promise.resolve(new Response("{}", { status: 404 }));
      }
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

  function absolute(source) {
    if (Array.isArray(source)) return source.map(absolute);
    if (typeof source === "object") return { ...source, url: absolute(source.url) };
    return PRECOMPUTED + new URL(source.slice(PRECOMPUTED.length), root).href;
  }

  async function readState() {
    const response = await fetch(new URL("scene.json", root), { cache: "no-cache" });
    if (!response.ok) throw new Error(`scene.json: ${response.status} ${response.statusText}`);
    const { state } = await response.json();
    const layers = state.layers.map((layer) => ({ ...layer, source: absolute(layer.source) }));
    return { ...state, layers };
  }

  function say(sentences) {
    const box = document.createElement("main");
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
    silenceServer();
    giveWorkersRanges();
    // What the user has changed is kept behind the #, also when the page is loaded again.
    if (location.hash.length < 3) {
      const state = await readState();
      history.replaceState(null, "", "#!" + encodeURIComponent(JSON.stringify(state)));
    }
    loadClient();
  }

  open().catch((error) => say(["This scene cannot be opened.", String(error)]));
})();
