// For clicking on cells (floodem.viewer.clicking), in the page before the client starts.
//
// 1. A shift+click floods, and shift+drag turns a slice or moves the 3-D view. Browsers send a
//    click at the end of a drag too: that one is swallowed.
// 2. Volumes that change while they are looked at would go empty at each change until they are
//    loaded anew, and their meshes would never change. Here what is old stays until the new is
//    there, meshes change as well, and the next change waits until the last one is drawn.
// 3. Objects that were kept, or taken back, are selected so that their meshes are shown, and so is
//    each new flood, whatever was done to the selection before.
//
// 4. When floodem has ended, the page says so instead of what was said last.
//
// 5. How long the page has drawn a change is told to floodem: without a graphics card drawing
//    takes the cores that the network computes on, and changes come the more seldom.
//
// 2, 3 and 5 reach into the client, whose names are those of its source (github.com/google/
// neuroglancer, chunk_manager/frontend.ts, datasource/python/frontend.ts, display_context.ts). Where a name is not
// there, that part is left out, and the client does as it does without us.
"use strict";
(() => {
  const FAR_PX = 4; // a hand that clicks moves less
  const OLD_FOR_MS = 2000; // what was not loaded anew in this time is out of view
  const GATHER_MS = { slices: 60, mesh: 250 }; // before the next change: other pieces of this one
  const DRAW_AFTER_MS = 80; // of the first piece of a change
  const PATIENCE_MS = 1500; // how long a change may wait for the one before it

  const WATCH_MS = 3000; // after a change: what is drawn later is not because of it
  const QUIET_MS = 100; // after the last of several draws of a change
  const TELL_AT_MS = 500; // a page that is never done says so all the same
  const LOOK_MS = 5; // how often to look whether a draw has ended
  const GONE_MS = 4000; // a server that is not heard of for so long has ended
  const GONE = "floodem has ended: start it again and open the new address";

  const told = (window.floodem = Object.assign(window.floodem || {}, { swallowed: 0, live: 0 }));

  // 1.
  let from = null;
  let isDrag = false;
  addEventListener("pointerdown", (event) => {
    from = [event.clientX, event.clientY];
    isDrag = false;
  }, true);
  addEventListener("pointermove", (event) => {
    if (from !== null && event.buttons !== 0) {
      isDrag = isDrag || Math.hypot(event.clientX - from[0], event.clientY - from[1]) > FAR_PX;
    }
  }, true);
  addEventListener("click", (event) => {
    const isInPanel = event.target instanceof Element && event.target.closest(".neuroglancer-rendered-data-panel") !== null;
    if (event.shiftKey && isDrag && isInPanel) {
      event.stopImmediatePropagation();
      event.preventDefault();
      told.swallowed += 1;
    }
    from = null;
  }, true);

  // 2.
  const live = new Map(); // source -> when each of its chunks became old
  const smoothQueues = new WeakSet();
  let drawTimer = 0;

  const makeQueueSmooth = (queue) => {
    if (smoothQueues.has(queue)) {
      return;
    }
    smoothQueues.add(queue);
    const apply = queue.applyChunkUpdate;
    queue.applyChunkUpdate = function (update) {
      const source = this.rpc.get(update.source);
      const old = live.get(source);
      const isInvalidation = update.id === undefined && update.promise === undefined;
      if (old === undefined) {
        return apply.call(this, update);
      }
      if (!isInvalidation) {
        if (apply.call(this, update) === true) {
          drawSoon(this);
        }
        return false; // nothing to draw at once
      }
      const now = performance.now();
      for (const key of source.chunks.keys()) {
        if (!old.has(key)) {
          old.set(key, now);
        }
      }
      setTimeout(() => removeOld(source, this), 1.1 * OLD_FOR_MS);
      return false;
    };
  };

  // Pieces of a change come one by one: they are drawn together.
  const drawSoon = (queue) => {
    if (drawTimer === 0) {
      drawTimer = setTimeout(() => {
        drawTimer = 0;
        queue.visibleChunksChanged.dispatch();
      }, DRAW_AFTER_MS);
    }
  };

  const removeOld = (source, queue) => {
    const old = live.get(source);
    if (old === undefined) {
      return;
    }
    const before = performance.now() - OLD_FOR_MS;
    let isChanged = false;
    for (const [key, since] of [...old]) {
      if (since <= before && source.chunks.has(key)) {
        source.deleteChunk(key);
        isChanged = true;
      }
    }
    if (isChanged) { // else all would be drawn again as it was
      queue.visibleChunksChanged.dispatch();
    }
  };

  // Its chunks stay until they are replaced; invalidateCache waits for the change before.
  const makeSmooth = (source, gatherMs) => {
    const old = new Map();
    const { addChunk, deleteChunk, invalidateCache } = source;
    const loaded = makePatient(source, gatherMs, () => invalidateCache.call(source));
    source.deleteChunk = function (key) {
      old.delete(key);
      deleteChunk.call(this, key);
    };
    source.addChunk = function (key, chunk) {
      if (this.chunks.has(key)) {
        this.deleteChunk(key);
      }
      addChunk.call(this, key, chunk);
      loaded();
    };
    live.set(source, old);
    source.registerDisposer(() => live.delete(source));
    makeQueueSmooth(source.chunkManager.chunkQueueManager);
  };

  // Returns what is to be called when something was loaded.
  const makePatient = (source, gatherMs, invalidate) => {
    let isBusy = false;
    let isWanted = false;
    let timer = 0;
    const rest = () => {
      isBusy = false;
      if (isWanted) {
        isWanted = false;
        source.invalidateCache();
      }
    };
    source.invalidateCache = () => {
      if (isBusy) {
        isWanted = true;
        return;
      }
      isBusy = true;
      clearTimeout(timer);
      timer = setTimeout(rest, PATIENCE_MS);
      invalidate();
    };
    return () => {
      if (isBusy) {
        clearTimeout(timer);
        timer = setTimeout(rest, gatherMs);
      }
    };
  };

  const makeLive = (source) => {
    const isMesh = source.fragmentSource !== undefined;
    if (isMesh) {
      makeSmooth(source.fragmentSource, GATHER_MS.mesh);
      // A manifest only says that there is one fragment; the client would ask for that alone.
      source.invalidateCache = () => source.fragmentSource.invalidateCache();
    } else {
      makeSmooth(source, GATHER_MS.slices);
    }
    told.live += 1;
  };

  // 3.
  const kept = new Map(); // key of a volume -> its objects, once they are known
  const floods = new Map(); // key of a volume -> number of the flood that was selected last

  const notesOf = async (key) => {
    const answer = await fetch(new URL(`../../neuroglancer/info/${key}`, location.href));
    return answer.ok ? (await answer.json()).floodem : undefined;
  };

  const select = async (viewer, key) => {
    const notes = await notesOf(key);
    if (notes === undefined) {
      return;
    }
    const before = kept.get(key);
    kept.set(key, new Set(notes.segments));
    const managed = viewer.layerManager.getLayerByName(notes.layer);
    if (managed === undefined || managed.layer === null) {
      return;
    }
    if (notes.number !== undefined) {
      // A selection that the user has changed is left alone until the next flood.
      if (notes.number > 0 && floods.get(key) !== notes.number) {
        floods.set(key, notes.number);
        const { visibleSegments } = managed.layer.displayState.segmentationGroupState.value;
        for (const id of notes.segments) {
          visibleSegments.add(BigInt(id));
        }
      }
      return;
    }
    if (before === undefined) {
      return;
    }
    const { selectedSegments, visibleSegments } = managed.layer.displayState.segmentationGroupState.value;
    for (const id of notes.segments) {
      if (!before.has(id)) {
        visibleSegments.add(BigInt(id));
      }
    }
    for (const id of before) {
      if (!kept.get(key).has(id)) {
        visibleSegments.delete(BigInt(id));
        selectedSegments.delete(BigInt(id));
      }
    }
  };

  // 5. The client's calls only put work in line for the graphics process; a fence in the same line
  // tells when it was done. Returns what is to be called when something has changed.
  const watchDrawing = (display) => {
    const gl = display?.gl;
    if (typeof gl?.fenceSync !== "function" || display.updateStarted === undefined || display.updateFinished === undefined) {
      return () => {};
    }
    let changed = -Infinity;
    let began = 0; // the draw under way
    let counted = 0; // until when time is counted already: draws overlap
    let spentMs = 0;
    let drawing = 0;
    let timer = 0;
    const tell = () => {
      const body = JSON.stringify({ action: "floodem-drawn", state: { drawnForS: spentMs / 1000 } });
      told.drawnForMs = spentMs;
      spentMs = 0;
      const token = /\/v\/([^/]+)/.exec(location.pathname)?.[1];
      fetch(new URL(`../../action/${token}`, location.href), { method: "POST", body }).catch(() => {});
    };
    const look = (fence) => {
      const isOver = gl.isContextLost() || gl.getSyncParameter(fence, gl.SYNC_STATUS) === gl.SIGNALED;
      if (!isOver) {
        setTimeout(look, LOOK_MS, fence);
        return;
      }
      gl.deleteSync(fence);
      const now = performance.now();
      spentMs += now - Math.max(began, counted);
      counted = now;
      drawing -= 1;
      if (spentMs > TELL_AT_MS) {
        tell();
      } else if (drawing === 0) {
        clearTimeout(timer);
        timer = setTimeout(tell, QUIET_MS);
      }
    };
    display.updateStarted.add(() => {
      if (drawing === 0) {
        began = performance.now();
      }
    });
    display.updateFinished.add(() => {
      if (performance.now() - changed > WATCH_MS) {
        return;
      }
      clearTimeout(timer);
      drawing += 1;
      const fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
      gl.flush();
      setTimeout(look, LOOK_MS, fence);
    });
    return () => {
      changed = performance.now();
    };
  };

  const start = (viewer) => {
    const python = viewer?.dataSourceProvider?.dataSources?.get?.("python");
    if (typeof python?.registerSource !== "function" || typeof python.setSourceGeneration !== "function") {
      return;
    }
    let selecting = Promise.resolve();
    const selectSoon = (key) => {
      selecting = selecting.then(() => select(viewer, key)).catch((error) => console.warn(error));
    };
    const watch = watchDrawing(viewer.display);
    const { registerSource, setSourceGeneration } = python;
    python.registerSource = function (key, source) {
      registerSource.call(this, key, source);
      makeLive(source);
      if (!kept.has(key)) {
        selectSoon(key);
      }
    };
    python.setSourceGeneration = function (key, generation) {
      const isNew = this.sourceGenerations.get(key) !== generation;
      setSourceGeneration.call(this, key, generation);
      if (isNew) {
        watch();
      }
      if (isNew && kept.has(key)) {
        selectSoon(key);
      }
    };
  };

  // 4. The client hears of its state by events, and asks for them again, later and later, when
  // they have stopped. What we tell it in their form is undone by the next real one: the name of
  // this state is none that the server knows.
  let said = null; // the last state with a line of ours, and who is to be told another
  let isGone = 0;
  const hear = (source, event) => {
    const { k: key, s: state } = JSON.parse(event.data);
    if (key === "c" && state?.statusMessages?.floodem !== undefined) {
      said = { state, source };
    }
  };
  const say = (text) => {
    if (said !== null && typeof said.source.onmessage === "function") {
      const statusMessages = { ...said.state.statusMessages, floodem: text };
      const data = JSON.stringify({ k: "c", s: { ...said.state, statusMessages }, g: "floodem/gone" });
      said.source.onmessage(new MessageEvent("message", { data }));
    }
  };
  window.EventSource = class extends EventSource {
    constructor(...asked) {
      super(...asked);
      this.addEventListener("message", (event) => hear(this, event));
      this.addEventListener("open", () => {
        clearTimeout(isGone);
        isGone = 0;
      });
      this.addEventListener("error", () => {
        isGone = isGone || setTimeout(() => say(GONE), GONE_MS);
      });
    }
  };

  let viewer;
  Object.defineProperty(window, "viewer", {
    configurable: true,
    get: () => viewer,
    set(made) {
      viewer = made;
      start(made);
    },
  });
})();
