// A run as a list of frames: what each step changed, and what it cost so far. No page in here.

/** @import { Cell, Change, Frame, Header, Look, Piece, Seen, Step } from "../film" */

/** Colours there are for steps. */
export const COLOURS = 8;

/** @type {Cell} */
const BLANK = {
  kind: "blank", text: "", end: false, step: 0, probability: NaN, entropy: NaN, confidence: NaN, ruled: false,
  rewritten: false, remasked: 0, others: [], second: NaN, runner: null,
};

/** One row of a run. */
export class Film {
  /** @param {Header} header @param {number} [row]  which of its rows */
  constructor(header, row = 0) {
    const { tokens, slot, blank, text, bounded } = header.canvas[row], none = bounded === false ? Infinity : 0;
    this.header = header;
    this.row = row;
    this.slot = slot;
    this.names = header.slots;
    this.ends = new Set(header.ends);
    this.open = blank;
    this.blanks = blank.filter(Boolean).length;
    /** @type {Record<string, any> | null} the finished run's record */
    this.record = null;
    /** after the last frame */
    this.cells = tokens.map((token, at) =>
      blank[at] ? BLANK : { ...BLANK, kind: "fixed", text: text[at], end: this.ends.has(token) });
    this.begin = this.cells.slice();
    /** the slot whose entropy is shown: `answer`, or else the last; its blanks */
    this.watched = this.names.includes("answer") ? "answer" : this.names[this.names.length - 1];
    this.answer = tokens.map((_, at) => at).filter((at) => blank[at] && this.slotAt(at) === this.watched);
    /** @type {Frame[]} */
    this.frames = [{
      changes: [], seen: new Map(), wrote: 0, remasked: 0, passes: 0, rounds: 0, filled: 0, bound: none, differ: none,
      entropy: null, outcome: "",
    }];
  }

  /** How many steps there are. */
  get steps() { return this.frames.length - 1; }

  /** Takes in what one step did; a step without this row makes no frame. @param {Step} event */
  add(event) {
    const mine = (/** @type {number[]} */ rows) => rows.flatMap((row, n) => (row === this.row ? [n] : []));
    const commits = mine(event.row), again = mine(event.remasked_row).map((n) => event.remasked_position[n]);
    const place = event.rows.indexOf(this.row), left = event.left.indexOf(this.row);
    if (place < 0 && left < 0 && !commits.length && !again.length) return;
    const last = this.frames[this.steps], step = this.frames.length, seen = this.seen(event.look);
    /** @type {Map<number, Change>} */
    const changes = new Map();
    const now = (/** @type {number} */ at) => changes.get(at)?.to ?? this.cells[at];
    const set = (/** @type {number} */ at, /** @type {Cell} */ to) => {
      changes.set(at, { at, from: changes.get(at)?.from ?? this.cells[at], to });
    };
    const write = (/** @type {number} */ n) => {
      const at = event.position[n], before = now(at);
      set(at, {
        kind: "written", text: event.text[n], end: this.ends.has(event.token[n]), step,
        probability: event.probability[n], entropy: event.entropy[n], confidence: event.confidence[n],
        ruled: event.ruled[n], rewritten: before.kind === "written", remasked: before.remasked,
        others: event.others?.[n] ?? [], second: seen.get(at)?.second ?? NaN, runner: seen.get(at)?.runner ?? null,
      });
    };
    // the order of `State.apply`: what was predicted, what is masked again, what a stop rule writes
    commits.filter((n) => !event.ruled[n]).forEach(write);
    for (const at of again) set(at, { ...BLANK, remasked: now(at).remasked + 1 });
    commits.filter((n) => event.ruled[n]).forEach(write);
    const lost = again.length > 0 || [...changes.values()].some(({ to }) => to.rewritten);
    const entropies = this.answer.filter((at) => this.cells[at].kind === "blank").map((at) => seen.get(at)?.entropy ?? NaN);
    const entropy = entropies.length ? sum(entropies) : NaN;
    for (const { at, to } of changes.values()) this.cells[at] = to;
    const paid = place < 0 ? 0 : Array.isArray(event.price) ? event.price[place] : event.price;
    const [b, d] = bounds(commits.map((n) => [event.entropy[n], event.confidence[n]]));
    this.frames.push({
      changes: [...changes.values()], seen, wrote: commits.length, remasked: again.length,
      passes: last.passes + paid,
      rounds: last.rounds + (place < 0 ? 0 : 1 + Number(paid > (this.header.passes ?? 1))),
      filled: this.cells.filter((cell) => cell.kind === "written").length,
      bound: lost ? Infinity : last.bound + b, differ: lost ? Infinity : last.differ + d,
      entropy: Number.isNaN(entropy) ? null : entropy, outcome: left < 0 ? "" : event.outcomes[left][1],
    });
  }

  /** What was predicted in this row. @param {Look} [look] @returns {Map<number, Seen>} */
  seen(look) {
    return new Map(look?.row.flatMap((row, n) => (row !== this.row ? [] : [[look.position[n], {
      text: look.text[n], probability: look.probability[n], second: look.second[n], runner: look.runner?.[n] ?? null,
      entropy: look.entropy[n],
    }]])));
  }

  /** Takes in the finished run's record, and the watched slot's curve with it. @param {Record<string, any>} record */
  finish(record) {
    this.record = record;
    for (const { step, entropy } of record.along ?? []) {
      if (this.frames[step + 1]) this.frames[step + 1].entropy = entropy;
    }
  }

  /** The colour of what a frame wrote: a number below `COLOURS`. @param {number} step */
  colour(step) {
    return Math.min(Math.floor(((step - 1) * COLOURS) / Math.max(1, this.steps)), COLOURS - 1);
  }

  /** The slot's name at a position, empty in fixed text. @param {number} at */
  slotAt(at) { return this.slot[at] < 0 ? "" : this.names[this.slot[at]]; }
}

/** @param {number[]} numbers */
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);

/**
 * The bounds b (nats) and d of a step's commits, as docs/bounds.md has them.
 * @param {[number, number][]} set  entropy and top probability of each
 * @returns {[number, number]}
 */
export function bounds(set) {
  if (set.length < 2) return [0, 0];
  const entropies = set.map((x) => x[0]), tops = set.map((x) => x[1]).sort((x, y) => x - y);
  const b = Math.max(sum(entropies) - Math.max(...entropies), 0);
  const rest = tops.slice(1), product = rest.reduce((a, c) => a * c, 1);
  const alone = Math.max(1 - sum(rest.map((c) => 1 - c)), 0);
  const least = sum(tops.map((c) => 1 - c)) <= 1 ? tops[0] : 0;
  return [b, Math.min(Math.sqrt(b / 2), Math.max(1 - product * Math.max(alone, least), 0))];
}

const INVISIBLE = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** A text that shows what it holds: unseen signs, and those that turn it around, are spelled out. @param {string} text */
export function visible(text) {
  return text.replace(INVISIBLE, (sign) =>
    "\n\t\u200c\u200d\u00ad".includes(sign) ? sign : `\\u{${(sign.codePointAt(0) ?? 0).toString(16)}}`);
}

/**
 * The text of neighbours. A letter that is spread over several of them comes with the last; "" stands for the others.
 * @param {Piece[]} pieces
 */
export function texts(pieces) {
  let decoder = new TextDecoder();
  return pieces.map((piece, n) => {
    if (typeof piece === "string") return visible(piece);
    const stream = Array.isArray(pieces[n + 1]), text = decoder.decode(new Uint8Array(piece), { stream });
    if (!stream) decoder = new TextDecoder();
    return visible(text);
  });
}
