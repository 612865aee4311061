// The chart under a canvas: what each step wrote and took back, and how uncertain the answer was.

import { short, svg } from "./dom.js";

/** @import { Film } from "./film.js" */

/**
 * Draws a bar for each step, downwards what became blank again, and the entropy of the answer's slot as a line.
 * @param {SVGElement} chart
 * @param {Film} film
 * @param {number} frame  the one that is shown
 * @param {number} width  frames that there is room for
 * @returns {string} what is in it
 */
export function draw(chart, film, frame, width) {
  const { frames, steps } = film;
  const up = Math.max(1, ...frames.map((f) => f.wrote)), down = Math.max(0, ...frames.map((f) => f.remasked));
  const height = 44, zero = height * (up / (up + down));
  chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const bars = [];
  for (let k = 1; k <= steps; k++) {
    const f = frames[k], tall = (f.wrote / up) * zero, deep = down ? (f.remasked / down) * (height - zero) : 0;
    const past = k <= frame ? "" : " later";
    if (tall) bars.push(bar(k, zero - tall, tall, `s${film.colour(k)}${past}`));
    if (deep) bars.push(bar(k, zero, deep, `taken${past}`));
  }
  const known = frames.map((f, k) => [k, f.entropy]).filter((pair) => pair[1] !== null);
  const most = Math.max(1e-9, ...known.map((pair) => Number(pair[1])));
  const points = known.length < 2 ? ""
    : known.map(([k, h]) => `${Number(k) - 0.5},${2 + (height - 4) * (1 - Number(h) / most)}`).join(" ");
  const caption = `tokens written in each step${down ? "; downwards: taken back" : ""}`
    + (points ? `; line: entropy of ${film.watched}, at most ${short(most)} nats` : "");
  chart.replaceChildren(...bars,
    ...(points ? [svg("polyline", { class: "entropy", points, "vector-effect": "non-scaling-stroke" })] : []),
    svg("line", {
      class: "head", x1: frame, x2: frame, y1: 0, y2: height, "vector-effect": "non-scaling-stroke",
    }));
  return caption;
}

/** @param {number} step @param {number} y @param {number} height @param {string} look */
const bar = (step, y, height, look) => svg("rect", { x: step - 0.92, width: 0.84, y, height, class: look });
