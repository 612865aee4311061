// The player: one or two films side by side, and what moves them.

import { element, icon } from "./dom.js";
import { COLOURS, Film } from "./film.js";
import { View } from "./view.js";

const PLAY = "M4 2.5v11l9-5.5z", PAUSE = "M4 2.5h3v11H4zM9 2.5h3v11H9z";
const BACK = "M11 2.5v11L4 8z", ON = "M5 2.5v11L12 8z", FIRST = "M12 2.5v11L6 8zM4 2.5h1.6v11H4z", LAST = "M4 2.5v11L10 8zM10.4 2.5H12v11h-1.6z";
const SPEEDS = [1, 2, 4, 8, 16, 32];

/** Plays films in an element of the page. */
export class Player {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    /** @type {View[]} */
    this.views = [];
    this.frame = 0;
    /** whether new steps of a run are shown as they come */
    this.live = false;
    this.timer = 0;
    this.waiting = 0;
    this.play = button("Play", PLAY, () => this.toggle());
    this.range = element("input", { type: "range", min: "0", max: "0", value: "0", "aria-label": "Step" });
    this.range.addEventListener("input", () => this.seek(Number(this.range.value)));
    this.where = element("output", { className: "where" });
    this.speed = element("select", { "aria-label": "Steps a second" },
      ...SPEEDS.map((n) => element("option", { value: String(n), selected: n === 8 }, `${n} steps/s`)));
    this.said = element("p", { className: "unseen", role: "status" });
    this.stage = element("div", { className: "stage" });
    this.notes = element("div", { className: "stage" });
    root.classList.add("player");
    root.dataset.colour = "step";
    root.replaceChildren(this.stage,
      element("div", { className: "transport", role: "group", "aria-label": "Playing" },
        button("First step", FIRST, () => this.seek(0)), button("Step back", BACK, () => this.seek(this.frame - 1)),
        this.play, button("Step forward", ON, () => this.seek(this.frame + 1)),
        button("Last step", LAST, () => this.seek(this.last)), this.range, this.where, this.speed),
      this.legend(), this.notes, this.said);
    root.addEventListener("keydown", (event) => this.key(event));
  }

  /**
   * Shows films from their beginning.
   * @param {Film[]} films
   * @param {string[]} [names]
   */
  open(films, names = films.map((_, n) => (films.length > 1 ? "AB"[n] : ""))) {
    this.pause();
    this.views = films.map((film, n) => new View(film, names[n], (frame) => this.seek(frame), (at, pin) => {
      for (const view of this.views) if (view.name !== names[n]) view.choose(at, pin);
    }));
    this.stage.replaceChildren(...this.views.map((view) => view.picture));
    this.notes.replaceChildren(...this.views.map((view) => view.about));
    this.seek(0);
  }

  /** The number of the last frame. */
  get last() { return Math.max(0, ...this.views.map((view) => view.film.steps)); }

  /** @param {number} frame */
  seek(frame) {
    this.live = false;
    this.pause();
    this.go(frame);
    this.tell();
  }

  /** @param {number} frame */
  go(frame) {
    this.frame = Math.max(0, Math.min(frame, this.last));
    for (const view of this.views) {
      view.width = Math.max(this.last, 12);
      view.show(this.frame);
    }
    this.range.max = String(this.last);
    this.range.value = String(this.frame);
    this.range.setAttribute("aria-valuetext", `step ${this.frame} of ${this.last}`);
    this.where.textContent = `${this.frame} / ${this.last}`;
  }

  /** Films have grown: shows the newest steps if it follows them, at most once a frame of the screen. */
  grown() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      for (const view of this.views) view.repaint();
      this.go(this.live ? this.last : this.frame);
    });
  }

  toggle() { if (this.timer) this.pause(); else this.start(); }

  start() {
    this.live = false;
    if (this.frame >= this.last) this.go(0);
    const next = () => {
      this.go(this.frame + 1);
      if (this.frame >= this.last) return this.pause();
      this.timer = window.setTimeout(next, 1000 / Number(this.speed.value));
    };
    this.timer = window.setTimeout(next, 0);
    this.face("Pause", PAUSE);
  }

  pause() {
    if (this.timer) window.clearTimeout(this.timer);
    const played = this.timer !== 0;
    this.timer = 0;
    this.face("Play", PLAY);
    if (played) this.tell();
  }

  /** @param {string} name @param {string} path */
  face(name, path) {
    this.play.setAttribute("aria-label", name);
    this.play.title = name;
    this.play.replaceChildren(icon(path));
  }

  /** Says where it stands to those who do not see it. */
  tell() {
    this.said.textContent = this.views.map((view) => {
      const frame = view.film.frames[view.frame];
      return `${view.name} step ${view.frame} of ${view.film.steps}: ${frame.filled} of ${view.film.blanks} filled. ${frame.outcome}`;
    }).join(" ").trim();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const target = /** @type {HTMLElement} */ (event.target);
    if (event.altKey || event.ctrlKey || event.metaKey || /^(SELECT|TEXTAREA)$/.test(target.tagName)) return;
    const on = target.tagName === "BUTTON" || target.tagName === "INPUT";
    if (event.key === " " && !on) this.toggle();
    else if (event.key === "ArrowRight" && target.tagName !== "INPUT") this.seek(this.frame + 1);
    else if (event.key === "ArrowLeft" && target.tagName !== "INPUT") this.seek(this.frame - 1);
    else if (event.key === "Home" && target.tagName !== "INPUT") this.seek(0);
    else if (event.key === "End" && target.tagName !== "INPUT") this.seek(this.last);
    else return;
    event.preventDefault();
  }

  /** What the colours mean, and which of the two meanings they have. */
  legend() {
    const ramp = (/** @type {string} */ kind) => element("span", { className: "ramp", "aria-hidden": "true" },
      ...Array.from({ length: COLOURS }, (_, n) => element("i", { className: `${kind}${n}` })));
    const choice = (/** @type {string} */ value, /** @type {string} */ text) => {
      const input = element("input", { type: "radio", name: "colour", value, checked: value === "step" });
      input.addEventListener("change", () => { this.root.dataset.colour = value; });
      return element("label", {}, input, text);
    };
    return element("div", { className: "legend" },
      element("fieldset", {}, element("legend", {}, "Colour"), choice("step", "step"), choice("certainty", "certainty")),
      element("span", { className: "key by-step" }, "first ", ramp("s"), " last"),
      element("span", { className: "key by-certainty" }, "uncertain ", ramp("p"), " certain"),
      element("span", { className: "key" }, element("i", { className: "mark new" }, "a"), " now"),
      element("span", { className: "key" }, element("i", { className: "mark taken" }, "\u00a0"), " taken back"),
      element("span", { className: "key" }, element("i", { className: "mark rewritten" }, "a"), " rewritten"),
      element("span", { className: "key" }, element("i", { className: "mark end" }, "·"), " end"));
  }
}

/**
 * The films of a saved run: one, or a row to choose.
 * @param {HTMLElement} root
 * @param {{films: import("../film").Film[], row?: number}} saved
 */
export function openSaved(root, saved) {
  const player = new Player(root);
  const film = (/** @type {import("../film").Film} */ data, row = 0) => {
    const made = new Film(data.header, row);
    for (const step of data.steps) made.add(step);
    if (data.record) made.finish(data.record);
    return made;
  };
  const rows = saved.films[0].header.canvas, one = saved.films.length === 1, row = one ? saved.row ?? 0 : 0;
  player.open(saved.films.map((data) => film(data, row)));
  if (one && rows.length > 1) {
    const choice = element("select", { id: "row" }, ...rows.map((row, n) =>
      element("option", { value: String(n) }, String(row.id))));
    choice.value = String(row);
    choice.addEventListener("change", () => {
      player.open([film(saved.films[0], Number(choice.value))]);
      player.go(player.last);
    });
    root.prepend(element("p", { className: "rows" }, element("label", { for: "row" }, "Row "), choice,
      ` of ${rows.length}`));
  }
  player.go(player.last);
  return player;
}

/** @param {string} name @param {string} path @param {() => void} act */
function button(name, path, act) {
  const made = element("button", { type: "button", title: name, "aria-label": name }, icon(path));
  made.addEventListener("click", act);
  return made;
}
