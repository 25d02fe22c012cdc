// Runs before anything else of the page: can this browser draw it? Where it cannot, the page says
// what to do, in place of the client, which would show an empty window.
"use strict";
(() => {
  const ADVICE = {
    chrome: {
      name: "Chrome, Edge and other browsers of that family",
      steps: [
        ["Open", "chrome://settings/system", "(in Edge edge://settings/system), switch on “Use graphics acceleration when available” and start the browser again."],
        ["Look at", "chrome://gpu", "(edge://gpu): “WebGL” and “WebGL2” should read “Hardware accelerated”. If not, the graphics driver may be too old: update it."],
        ["If the driver is refused, open", "chrome://flags/#ignore-gpu-blocklist", "(edge://flags), choose “Enabled” and start the browser again."],
      ],
    },
    firefox: {
      name: "Firefox",
      steps: [
        ["Open", "about:config", "and look for webgl.disabled, which must be false, and set webgl.force-enabled to true; then start Firefox again."],
        ["Look at", "about:support", "and there at “Graphics”: “WebGL 2 Driver Renderer” should name your graphics card. If not, update its driver."],
      ],
    },
  };

  const missing = () => {
    const canvas = document.createElement("canvas");
    const gl = canvas.getContext("webgl2");
    if (!gl) {
      return "WebGL 2";
    }
    const has = gl.getExtension("EXT_color_buffer_float") !== null;
    const release = gl.getExtension("WEBGL_lose_context");
    if (release) {
      release.loseContext();
    }
    return has ? null : "the WebGL extension EXT_color_buffer_float";
  };

  const element = (name, text) => {
    const made = document.createElement(name);
    if (text) {
      made.textContent = text;
    }
    return made;
  };

  const explain = (lack) => {
    const body = document.body;
    // The client's style is for a window that is filled by panels.
    for (const style of document.querySelectorAll("link[rel=stylesheet]")) {
      style.remove();
    }
    document.documentElement.style.background = "#fff";
    body.style.cssText = "font: 16px/1.5 system-ui, sans-serif; max-width: 44em; margin: 2em auto; padding: 0 1em; color: #222";
    body.append(element("h1", "This browser cannot draw the volumes"));
    body.append(element("p", `It does not offer ${lack}, with which Neuroglancer draws. Usually hardware acceleration is switched off, or the graphics driver is not trusted. The addresses below have to be typed or copied: browsers do not follow links to them.`));
    const isFirefox = /firefox/i.test(navigator.userAgent);
    const order = isFirefox ? ["firefox", "chrome"] : ["chrome", "firefox"];
    for (const which of order) {
      body.append(element("h2", ADVICE[which].name));
      const list = element("ol");
      for (const [before, address, after] of ADVICE[which].steps) {
        const item = element("li", `${before} `);
        item.append(element("code", address), ` ${after}`);
        list.append(item);
      }
      body.append(list);
    }
    body.append(element("p", "Over remote desktops and in virtual machines there is often no graphics card: open the printed address in a browser of your own machine instead (ssh -L PORT:127.0.0.1:PORT HOST), or let floodem view --screenshot draw a picture."));
  };

  const lack = missing();
  window.floodem = Object.assign(window.floodem || {}, { lacks: lack });
  document.addEventListener("DOMContentLoaded", () => {
    if (lack !== null) {
      explain(lack);
      return;
    }
    // The client's own scripts, in their order.
    for (const waiting of document.getElementById("client").content.querySelectorAll("script")) {
      const script = document.createElement("script");
      script.async = false;
      script.src = waiting.getAttribute("src");
      document.head.append(script);
    }
  });
})();
