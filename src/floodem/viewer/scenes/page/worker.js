// The client's worker with ranges: the name of its script comes in behind "?script=".
"use strict";
(() => {
  const script = new URLSearchParams(self.location.search).get("script") ?? "";
  if (!/^[\w.-]+\.js$/.test(script)) throw new Error(`no script of this folder: ${script}`);
  importScripts("ranges.js", script);
})();
