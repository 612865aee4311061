// What a saved file does when it is opened. The modules before it stand in the same script.

import { element } from "./dom.js";
import { openSaved } from "./player.js";

const saved = JSON.parse(document.getElementById("data")?.textContent ?? "");
const about = /** @type {HTMLElement} */ (document.getElementById("about"));
const { model, backend, seed, cache, versions } = saved.films[0].header;
about.append(...[`${model} on ${backend}`, `seed ${seed}`, ...(cache === "none" ? [] : [`cache ${cache}`]),
  `mdsample ${versions?.mdsample ?? ""}`].map((fact) => element("span", {}, fact)));
openSaved(/** @type {HTMLElement} */ (document.getElementById("player")), saved);
