// A policy's editor: its text, the parts it has, a menu of parts with their docstrings, and what it means.

import { element } from "./dom.js";

/** @import { Entry, Menu } from "../film" */

/**
 * The parts of a policy's text, as they stand between its plus signs.
 * @param {string} text
 */
export function parts(text) {
  const found = [""];
  let depth = 0, quote = "";
  for (const sign of text) {
    if (quote) quote = sign === quote ? "" : quote;
    else if (sign === "'" || sign === '"') quote = sign;
    else if ("([{".includes(sign)) depth++;
    else if (")]}".includes(sign)) depth--;
    if (sign === "+" && !depth && !quote) found.push("");
    else found[found.length - 1] += sign;
  }
  return found.map((part) => part.trim()).filter(Boolean);
}

/** A part's name. @param {string} part */
const nameOf = (part) => part.split("(")[0].trim();

/**
 * The text with a part put in; what holds its seat goes, and a preset without settings is spelled out for that.
 * @param {string} text
 * @param {string} part
 * @param {Menu} menu
 */
export function withPart(text, part, menu) {
  const seats = new Map(menu.seats.flatMap((seat) => seat.parts.map((entry) => [entry.name, seat])));
  const presets = new Map(menu.presets.map((entry) => [entry.name, entry.parts]));
  const seat = seats.get(nameOf(part));
  if (!seat) return part;
  const whole = parts(text).flatMap((old) => {
    const meant = presets.get(old);
    return !seat.many && meant && parts(meant).some((one) => seats.get(nameOf(one)) === seat) ? parts(meant) : [old];
  });
  return [...whole.filter((old) => old !== part && (seat.many || seats.get(nameOf(old)) !== seat)), part].join("+");
}

let editors = 0;

/** An editor of one policy. */
export class PolicyEditor {
  /**
   * @param {string} title
   * @param {(text: string) => Promise<any>} explain  what a policy means; throws what is wrong with it
   */
  constructor(title, explain) {
    const id = `policy${++editors}`;
    this.explain = explain;
    /** @type {Menu} */
    this.menu = { seats: [], presets: [] };
    this.timer = 0;
    this.asked = 0;
    this.input = element("input", {
      type: "text", id, className: "mono", spellcheck: false, placeholder: "the model's own",
      "aria-describedby": `${id}-meaning`,
    });
    this.input.addEventListener("input", () => this.changed());
    this.chips = element("div", { className: "chips", role: "group", "aria-label": `Parts of ${title.toLowerCase()}` });
    this.choice = element("select", { "aria-label": "Part or preset" });
    this.choice.addEventListener("change", () => this.describe());
    this.described = element("div", { className: "described" });
    this.meaning = element("div", { className: "meaning", id: `${id}-meaning`, "aria-live": "polite" });
    this.root = element("div", { className: "editor" }, element("label", { for: id }, title), this.input, this.chips,
      element("details", { className: "menu" }, element("summary", {}, "Choose parts"), this.choice, this.described),
      this.meaning);
  }

  /** The policy's text; empty: the model's own. */
  get text() { return this.input.value.trim(); }

  set text(value) {
    this.input.value = value;
    this.changed();
  }

  /** @param {Menu} menu */
  open(menu) {
    this.menu = menu;
    const group = (/** @type {string} */ label, /** @type {Entry[]} */ entries) => element("optgroup", { label },
      ...entries.map((entry) => element("option", { value: entry.name }, entry.name)));
    this.choice.replaceChildren(group("presets", menu.presets),
      ...menu.seats.map((seat) => group(`${seat.seat}: ${seat.question}`, seat.parts)));
    this.describe();
    this.changed();
  }

  /** Shows the chosen part: its docstring and its settings. */
  describe() {
    const name = this.choice.value;
    const entry = [...this.menu.presets, ...this.menu.seats.flatMap((seat) => seat.parts)].find((e) => e.name === name);
    if (!entry) return;
    const rest = entry.about.slice(entry.summary.length).trim();
    const inputs = entry.settings.map((setting) => {
      const input = element("input", { type: "text", className: "mono", value: setting.default, placeholder: "…" });
      return { setting, input, row: element("label", { className: "setting" }, element("span", {}, setting.name), input,
        element("small", {}, setting.domain)) };
    });
    const put = element("button", { type: "button" }, "Put into the policy");
    put.addEventListener("click", () => {
      const said = inputs.filter(({ setting, input }) => input.value.trim() && input.value.trim() !== setting.default)
        .map(({ setting, input }) => `${setting.name}=${input.value.trim()}`);
      this.text = withPart(this.text, said.length ? `${name}(${said.join(",")})` : name, this.menu);
    });
    this.described.replaceChildren(element("p", {}, entry.summary),
      ...(entry.parts ? [element("p", { className: "mono soft" }, `= ${entry.parts}`)] : []),
      ...(rest ? [element("details", {}, element("summary", {}, "more"),
        ...rest.split("\n\n").map((block) => element("p", {}, block)))] : []),
      ...inputs.map(({ row }) => row), put);
  }

  /** The text has changed: shows its parts, and asks what it means once nobody types. */
  changed() {
    const all = parts(this.text);
    this.chips.replaceChildren(...all.map((part, n) => {
      const remove = element("button", { type: "button", "aria-label": `Remove ${part}`, title: "Remove" }, "×");
      remove.addEventListener("click", () => {
        this.text = all.filter((_, other) => other !== n).join("+");
        this.input.focus();
      });
      return element("span", { className: "chip" }, element("code", {}, part), remove);
    }));
    window.clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this.mean(), 350);
  }

  async mean() {
    const asked = ++this.asked;
    try {
      const meaning = await this.explain(this.text);
      if (asked === this.asked) this.tell(meaning);
    } catch (fault) {
      if (asked !== this.asked) return;
      this.input.setAttribute("aria-invalid", "true");
      this.meaning.replaceChildren(element("pre", { className: "fault" }, /** @type {Error} */ (fault).message));
    }
  }

  /** @param {any} meaning */
  tell(meaning) {
    this.input.removeAttribute("aria-invalid");
    const open = this.meaning.querySelector("details")?.open ?? false;
    this.meaning.replaceChildren(element("details", { open }, element("summary", {}, "What it does"),
      element("dl", {}, ...meaning.parts.flatMap((/** @type {any} */ part) => [
        element("dt", {}, `${part.seat} `, element("code", {}, part.part)), element("dd", {}, part.about.split("\n\n")[0]),
      ]))));
  }
}
