// A film on the page: the canvas, and under it what it cost and what is known of one token.

import { draw } from "./chart.js";
import { element, short, svg } from "./dom.js";
import { COLOURS, texts } from "./film.js";
import { readout } from "./readout.js";

/** @typedef {import("./film.js").Film} Film */

const GAP = "\u00a0", END = "·";
let views = 0;

/** Shows one frame of a film at a time. */
export class View {
  /**
   * @param {Film} film
   * @param {string} name                     what it is called among others; empty: it is alone
   * @param {(frame: number) => void} seek    called where the chart is clicked
   * @param {(at: number, pin: boolean) => void} chose  called when a token is chosen here, or −1
   */
  constructor(film, name, seek, chose) {
    this.film = film;
    this.chose = chose;
    /** frames that the chart has room for */
    this.width = 1;
    this.name = name;
    this.number = ++views;
    this.frame = 0;
    this.cells = film.begin.slice();
    /** @type {Map<number, HTMLElement>} */
    this.spans = new Map();
    this.chosen = -1;
    this.pinned = false;
    this.canvas = element("div", {
      className: "canvas", tabIndex: 0, role: "listbox", "aria-label": `Canvas${name && ` ${name}`}`,
      "aria-describedby": `facts${this.number}`,
    });
    this.facts = element("dl", { className: "facts", id: `facts${this.number}` });
    this.chart = svg("svg", { class: "chart", preserveAspectRatio: "none", "aria-hidden": "true" });
    this.chart.addEventListener("click", (event) => {
      const { left, width } = this.chart.getBoundingClientRect();
      seek(Math.ceil(((/** @type {MouseEvent} */ (event).clientX - left) / width) * this.width));
    });
    this.readout = element("div", { className: "readout", "aria-live": "polite" });
    this.outcome = element("p", { className: "outcome" });
    this.policy = element("code", { className: "policy" });
    this.caption = element("p", { className: "caption" });
    this.text = element("p", { className: "unseen" });
    const label = () => (name ? [element("span", { className: "name" }, name)] : []);
    this.picture = element("article", { className: "card picture", "aria-label": name ? `Run ${name}` : "Run" },
      element("header", {}, ...label(), this.policy), this.canvas, this.text,
      element("div", {}, this.chart, this.caption));
    this.about = element("section", { className: "card about", "aria-label": `What it cost${name && ` (${name})`}` },
      ...label(), element("div", {}, this.facts, this.outcome), this.readout);
    this.listen();
    this.build();
    this.show(0);
  }

  /** Puts the film's text on the canvas: a span for each blank, one for each stretch of fixed text. */
  build() {
    const { film } = this;
    this.policy.textContent = film.header.asked || film.header.policy;
    this.policy.title = film.header.policy;
    for (let at = 0; at < film.open.length;) {
      let end = at + 1;
      if (!film.open[at]) while (end < film.open.length && !film.open[end]) end++;
      if (film.open[at]) {
        const span = element("span", { role: "option", id: `t${this.number}-${at}`, "aria-selected": "false" });
        span.dataset.at = String(at);
        this.spans.set(at, span);
        this.canvas.append(span, element("wbr"));
        this.paint(at);
      } else {
        // what is given fills its slot with end tokens, which have no text
        const stretch = film.begin.slice(at, end).filter((cell) => !(cell.end && cell.text === ""));
        this.canvas.append(element("span", { className: "fixed", role: "presentation" },
          texts(stretch.map((cell) => cell.text)).join("")));
      }
      at = end;
    }
    if (!this.spans.size) this.canvas.setAttribute("role", "group");
    requestAnimationFrame(() => {
      const first = this.spans.values().next().value;
      if (first) this.canvas.scrollTop = Math.max(0, first.offsetTop - this.canvas.clientHeight / 3);
    });
  }

  /**
   * Moves to a frame, from wherever it is.
   * @param {number} frame
   */
  show(frame) {
    const { frames } = this.film, target = Math.max(0, Math.min(frame, frames.length - 1));
    const touched = new Set([...frames[this.frame].changes.map((change) => change.at), ...frames[this.frame].seen.keys()]);
    for (; this.frame < target; this.frame++) {
      for (const { at, to } of frames[this.frame + 1].changes) {
        this.cells[at] = to;
        touched.add(at);
      }
    }
    for (; this.frame > target; this.frame--) {
      for (const { at, from } of frames[this.frame].changes) {
        this.cells[at] = from;
        touched.add(at);
      }
    }
    for (const { at } of frames[this.frame].changes) touched.add(at);
    for (const at of frames[this.frame].seen.keys()) touched.add(at);
    for (const at of touched) this.paint(at);
    this.tell();
  }

  /** The film has grown, which moves the colours of its steps. */
  repaint() { for (const at of this.spans.keys()) if (this.cells[at].kind === "written") this.paint(at); }

  /** Paints a position, with its neighbours where a letter is spread over them. @param {number} at */
  paint(at) {
    const split = (/** @type {number} */ n) => Array.isArray(this.cells[n]?.text);
    let from = at, to = at + 1;
    if (split(at) || split(at - 1)) while (split(from - 1)) from--;
    if (split(at) || split(at + 1)) while (split(to)) to++;
    const shown = texts(this.cells.slice(from, to).map((cell) => cell.text));
    for (let n = from; n < to; n++) this.paintOne(n, shown[n - from]);
  }

  /** @param {number} at @param {string} text */
  paintOne(at, text) {
    const span = this.spans.get(at), cell = this.cells[at];
    if (!span) return;
    const frame = this.film.frames[this.frame], now = frame.changes.some((change) => change.at === at);
    const looks = [cell.kind], seen = frame.seen.get(at);
    if (cell.kind === "written") {
      looks.push(`s${this.film.colour(cell.step)}`, `p${certainty(cell.probability)}`);
      if (cell.end) looks.push("end");
      if (cell.ruled) looks.push("ruled");
      if (cell.rewritten) looks.push("rewritten");
      if (now) looks.push("new");
    } else {
      if (cell.remasked) looks.push(now ? "taken" : "again");
      if (seen) looks.push("seen", `p${certainty(seen.probability)}`);
    }
    if (at === this.chosen) looks.push("chosen");
    span.className = looks.join(" ");
    span.textContent = cell.kind === "blank" ? GAP : cell.end ? END : text === "" ? "\u2060" : newline(text);
    span.setAttribute("aria-label", cell.kind === "blank" ? "blank" : cell.end ? "end" : text.trim() || "space");
  }

  /** Says what the frame cost, draws the chart, and says what is known of the chosen token. */
  tell() {
    const { film } = this, frame = film.frames[this.frame];
    const bound = frame.bound === Infinity ? film.frames[0].bound === Infinity ? "none: nothing is promised of such a run" : "none: tokens were taken back or rewritten" : `${short(frame.bound)} nats`;
    this.facts.replaceChildren(...[
      ["step", `${this.frame} of ${film.steps}`],
      ["filled", `${frame.filled} of ${film.blanks}`],
      ["passes", `${frame.passes}`],
      ...(frame.rounds === frame.passes ? [] : [["rounds", `${frame.rounds}`]]),
      ["tokens a pass", frame.passes ? (frame.filled / frame.passes).toFixed(2) : "–"],
      ["error bound", bound, "How far the law of the texts may be from that of one token at a time (Σ b)"],
      ...(frame.bound === Infinity ? [] : [["TV bound", short(frame.differ),
        "Of many such texts, the share that may differ from writing one token at a time (Σ d)"]]),
    ].map(([term, value, title = ""]) =>
      element("div", { title }, element("dt", {}, term), element("dd", {}, value))));
    this.outcome.textContent = frame.outcome;
    this.text.textContent = this.canvas.textContent;
    this.caption.textContent = draw(this.chart, film, this.frame, this.width);
    this.read();
  }

  /** Says what is known of the chosen token. */
  read() {
    const text = this.spans.get(this.chosen)?.textContent ?? "";
    this.readout.replaceChildren(...readout(this.film, this.frame, this.chosen, this.cells[this.chosen], text));
  }

  /** @param {number} at  −1: none @param {boolean} [pin]  whether it stays when the mouse leaves */
  choose(at, pin = false) {
    const before = this.spans.get(this.chosen), now = this.spans.get(at);
    before?.classList.remove("chosen");
    before?.setAttribute("aria-selected", "false");
    now?.classList.add("chosen");
    now?.setAttribute("aria-selected", "true");
    this.chosen = now ? at : -1;
    this.pinned = pin && this.chosen >= 0;
    if (now) this.canvas.setAttribute("aria-activedescendant", now.id);
    else this.canvas.removeAttribute("aria-activedescendant");
    this.read();
  }

  /** Chooses a token here and, side by side, there. @param {number} at @param {boolean} [pin] */
  pick(at, pin = false) {
    this.choose(at, pin);
    this.chose(this.chosen, this.pinned);
  }

  listen() {
    const at = (/** @type {Event} */ event) =>
      Number(/** @type {HTMLElement} */ (event.target).closest?.("[data-at]")?.getAttribute("data-at") ?? -1);
    this.canvas.addEventListener("pointerover", (event) => {
      if (!this.pinned && event.pointerType === "mouse") this.pick(at(event));
    });
    this.canvas.addEventListener("pointerleave", () => { if (!this.pinned) this.pick(-1); });
    this.canvas.addEventListener("click", (event) => this.pick(at(event), true));
    this.canvas.addEventListener("keydown", (event) => {
      const places = [...this.spans.keys()], here = places.indexOf(this.chosen);
      const to = {
        ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: places.length - 1,
        ArrowDown: this.below(here, 1), ArrowUp: this.below(here, -1),
      }[event.key];
      if (event.key === "Escape") this.pick(-1);
      if (to === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      const place = places[Math.max(0, Math.min(to, places.length - 1))];
      if (place === undefined) return;
      this.pick(place, true);
      this.spans.get(place)?.scrollIntoView({ block: "nearest" });
    });
  }

  /** The blank that stands under or over another. @param {number} here @param {1 | -1} way */
  below(here, way) {
    const spans = [...this.spans.values()], from = spans[here]?.getBoundingClientRect();
    if (!from) return 0;
    for (let n = here + way; n >= 0 && n < spans.length; n += way) {
      const box = spans[n].getBoundingClientRect();
      const another = way > 0 ? box.top >= from.bottom - 2 : box.bottom <= from.top + 2;
      if (another && (way > 0 ? box.right >= from.left : box.left <= from.right)) return n;
    }
    return here;
  }
}

/** The colour of a probability, 0 (uncertain) to 7. @param {number} p */
const certainty = (p) => Math.max(0, Math.min(COLOURS - 1, Math.floor(p * COLOURS)));

/** A line that ends can be pointed at. @param {string} text */
const newline = (text) => (text.trim() === "" && text.includes("\n") ? text.replace("\n", "⏎\n") : text);
