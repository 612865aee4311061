// What is known of one position, in words and bars.

import { count, element, short } from "./dom.js";
import { texts } from "./film.js";

/** @import { Cell } from "../film" */
/** @import { Film } from "./film.js" */

/**
 * @param {Film} film
 * @param {number} number  of the frame
 * @param {number} at      the position, −1 for none
 * @param {Cell | undefined} cell  what is there
 * @param {string} shown   its text on the canvas
 * @returns {HTMLElement[]}
 */
export function readout(film, number, at, cell, shown) {
  const frame = film.frames[number];
  if (!cell) {
    const curve = frame.entropy === null ? ""
      : ` The entropy of ${film.watched} was ${short(frame.entropy)} nats in the last prediction.`;
    return [element("p", { className: "hint" },
      `Point at a token to see how sure the model was, or step into the canvas and use the arrow keys.${curve}`)];
  }
  const slot = film.slotAt(at), where = ` position ${at}${slot && ` in ${slot}`}`;
  const text = cell.kind === "blank" ? "blank" : cell.end ? "end of text" : `“${shown}”`;
  const token = element("p", { className: "token" }, element("strong", {}, text), where);
  const again = cell.remasked ? `, made blank again ${count(cell.remasked, "time")}` : "";
  if (cell.kind === "blank") {
    const seen = frame.seen.get(at), line = element("p", {}, `not written${again}`);
    return [token, line, ...(seen ? [
      meter(quoted(seen.text), seen.probability), meter(runnerUp(seen), seen.second, "other"),
      element("p", {}, `entropy ${short(seen.entropy)} nats, in the last prediction`)] : [])];
  }
  if (cell.ruled) return [token, element("p", {}, `step ${cell.step}, by rule, without a prediction${again}`)];
  const better = cell.others.map((other) => meter(quoted(other.text), other.probability, "other"));
  if (!better.length && cell.confidence > cell.probability + 1e-4) better.push(meter("most probable", cell.confidence, "other"));
  return [token, element("p", {}, `${cell.rewritten ? "rewritten" : "written"} in step ${cell.step}${again}`),
    meter("probability", cell.probability), ...better, ...(cell.second ? [meter(runnerUp(cell), cell.second, "other")] : []),
    element("p", {}, `entropy ${short(cell.entropy)} nats`)];
}

/** @param {import("../film").Piece} piece */
const quoted = (piece) => `“${texts([piece])[0]}”`;

/** @param {{ runner: import("../film").Piece | null }} of */
const runnerUp = (of) => (of.runner === null ? "second best" : `2nd ${quoted(of.runner)}`);

/** @param {string} name @param {number} value @param {string} [look] */
function meter(name, value, look = "") {
  const fill = element("i");
  fill.style.setProperty("width", `${(value * 100).toFixed(1)}%`);
  return element("p", { className: `meter ${look}` },
    element("span", {}, name), element("b", {}, value.toFixed(3)), element("span", { className: "track" }, fill));
}
