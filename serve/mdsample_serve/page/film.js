// A run as a list of frames: what each step changed, and what it cost so far. No page in here.

/**
 * A token's text, or the bytes of a piece of a letter.
 * @typedef {string | number[]} Piece
 */
/**
 * One position of the canvas at one moment.
 * @typedef {object} Cell
 * @property {"fixed" | "blank" | "written"} kind
 * @property {Piece} text
 * @property {boolean} end        a token that ends a text
 * @property {number} step        the frame that wrote it, from 1; 0 where none did
 * @property {number} probability of the token under the model
 * @property {number} entropy     of the position when it was written, nats
 * @property {number} confidence  of the position's most probable token
 * @property {boolean} ruled      written by rule, without a prediction
 * @property {boolean} rewritten  took the place of another token
 * @property {number} remasked    how often the position became blank again
 * @property {Runner[]} others    the next probable tokens, where they are known
 */
/** @typedef {{text: Piece, probability: number}} Runner */
/** @typedef {{at: number, from: Cell, to: Cell}} Change */
/**
 * @typedef {object} Frame
 * @property {Change[]} changes
 * @property {number} wrote       tokens written in this step, by rule included
 * @property {number} remasked    positions that this step made blank again
 * @property {number} passes      forward passes so far
 * @property {number} rounds      passes that followed one another so far
 * @property {number} filled      blanks that are filled now
 * @property {number} bound       Σ b so far, nats; infinite once something was remasked or rewritten
 * @property {number} differ      Σ d so far
 * @property {number | null} entropy  of the watched slot, nats, where it is known
 * @property {string} outcome     why the row left, if it did
 */

/** Colours there are for steps. */
export const COLOURS = 8;

/** One row of a run. */
export class Film {
  /**
   * @param {any} header  a trace's header, with `canvas`, its rows
   * @param {number} row  which of them
   */
  constructor(header, row = 0) {
    const canvas = header.canvas[row];
    this.header = header;
    this.row = row;
    this.id = canvas.id;
    this.slot = canvas.slot;
    this.names = header.slots;
    this.ends = new Set(header.ends ?? []);
    /** @type {any} the finished run's record */
    this.record = null;
    /** @type {Cell[]} after the last frame */
    this.cells = canvas.tokens.map((/** @type {number} */ token, /** @type {number} */ at) =>
      canvas.blank[at]
        ? blank(0)
        : { ...blank(0), kind: "fixed", text: canvas.text[at], end: this.ends.has(token) });
    this.blanks = canvas.blank.filter(Boolean).length;
    /** @type {boolean[]} */
    this.open = canvas.blank;
    this.begin = this.cells.slice();
    /** @type {Frame[]} */
    this.frames = [{
      changes: [], wrote: 0, remasked: 0, passes: 0, rounds: 0, filled: 0, bound: 0, differ: 0, entropy: null, outcome: "",
    }];
  }

  /** How many steps there are. */
  get steps() { return this.frames.length - 1; }

  /** Whether the row has left. */
  get done() { return this.frames[this.steps].outcome !== "" || this.record !== null; }

  /**
   * Takes in what one step did; a step without this row makes no frame.
   * @param {any} event  a step line of a trace, with `text` for each commit
   */
  add(event) {
    const commits = event.row.map((/** @type {number} */ _, /** @type {number} */ n) => n)
      .filter((/** @type {number} */ n) => event.row[n] === this.row);
    const place = event.rows.indexOf(this.row), left = event.left.indexOf(this.row);
    const again = event.remasked_position.filter((/** @type {number} */ _, /** @type {number} */ n) =>
      event.remasked_row[n] === this.row);
    if (place < 0 && left < 0 && !commits.length && !again.length) return;
    const last = this.frames[this.steps], step = this.frames.length;
    /** @type {Map<number, Change>} */
    const changes = new Map();
    const set = (/** @type {number} */ at, /** @type {Cell} */ to) => {
      changes.set(at, { at, from: changes.get(at)?.from ?? this.cells[at], to });
    };
    const now = (/** @type {number} */ at) => changes.get(at)?.to ?? this.cells[at];
    let rewrote = false;
    const write = (/** @type {number} */ n) => {
      const at = event.position[n], before = now(at);
      rewrote ||= before.kind === "written";
      set(at, {
        kind: "written", text: event.text[n], end: this.ends.has(event.token[n]), step,
        probability: event.probability[n], entropy: event.entropy[n], confidence: event.confidence[n],
        ruled: event.ruled[n], rewritten: before.kind === "written", remasked: before.remasked,
        others: event.others?.[n] ?? [],
      });
    };
    commits.filter((/** @type {number} */ n) => !event.ruled[n]).forEach(write);
    for (const at of again) set(at, blank(now(at).remasked + 1));
    commits.filter((/** @type {number} */ n) => event.ruled[n]).forEach(write);
    for (const { at, to } of changes.values()) this.cells[at] = to;
    const paid = place < 0 ? 0 : Array.isArray(event.price) ? event.price[place] : event.price;
    const [b, d] = bounds(commits.map((/** @type {number} */ n) => [event.entropy[n], event.confidence[n]]));
    const lost = rewrote || again.length > 0;
    this.frames.push({
      changes: [...changes.values()], wrote: commits.length, remasked: again.length,
      passes: last.passes + paid,
      rounds: last.rounds + (place < 0 ? 0 : 1 + Number(paid > (this.header.passes ?? 1))),
      filled: this.cells.filter((cell) => cell.kind === "written").length,
      bound: lost ? Infinity : last.bound + b, differ: lost ? Infinity : last.differ + d,
      entropy: this.slotEntropy(event), outcome: left < 0 ? "" : event.outcomes[left][1],
    });
  }

  /**
   * Takes in the finished run's record, and with it the curve of the slot that was watched.
   * @param {any} record
   */
  finish(record) {
    this.record = record;
    for (const reading of record.along ?? []) {
      const frame = this.frames[reading.step + 1];
      if (frame) frame.entropy = reading.entropy;
    }
  }

  /**
   * @param {any} event
   * @returns {number | null} entropy of the watched slot before this step
   */
  slotEntropy(event) {
    return event.slot_entropy?.[event.rows.indexOf(this.row)] ?? null;
  }

  /**
   * The colour of a token written in a frame: a number below `COLOURS`.
   * @param {number} step
   */
  colour(step) {
    return Math.min(Math.floor(((step - 1) * COLOURS) / Math.max(1, this.steps)), COLOURS - 1);
  }

  /** The slot's name at a position, empty in fixed text. @param {number} at */
  slotAt(at) { return this.slot[at] < 0 ? "" : this.names[this.slot[at]]; }
}

/**
 * @param {number} remasked
 * @returns {Cell}
 */
function blank(remasked) {
  return {
    kind: "blank", text: "", end: false, step: 0, probability: NaN, entropy: NaN, confidence: NaN, ruled: false,
    rewritten: false, remasked, others: [],
  };
}

/**
 * The bounds b (nats) and d of a step's commits, as docs/bounds.md has them.
 * @param {[number, number][]} set  entropy and top probability of each
 * @returns {[number, number]}
 */
export function bounds(set) {
  if (set.length < 2) return [0, 0];
  const sum = (/** @type {number[]} */ x) => x.reduce((a, y) => a + y, 0);
  const entropies = set.map((x) => x[0]), tops = set.map((x) => x[1]).sort((x, y) => x - y);
  const b = Math.max(sum(entropies) - Math.max(...entropies), 0);
  const rest = tops.slice(1), product = rest.reduce((a, c) => a * c, 1);
  const errors = sum(tops.map((c) => 1 - c));
  const alone = Math.max(1 - sum(rest.map((c) => 1 - c)), 0);
  const coupled = 1 - product * Math.max(alone, errors <= 1 ? tops[0] : 0);
  return [b, Math.min(Math.sqrt(b / 2), Math.max(coupled, 0))];
}

const INVISIBLE = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu;

/**
 * A text that shows what it holds: signs that are not seen, or that turn the text around, are spelled out.
 * @param {string} text
 */
export function visible(text) {
  return text.replace(INVISIBLE, (sign) =>
    "\n\t\u200c\u200d\u00ad".includes(sign) ? sign : `\\u{${(sign.codePointAt(0) ?? 0).toString(16)}}`);
}

/**
 * The text of neighbours. A letter that is spread over several of them comes with the last; "" stands for the others.
 * @param {Piece[]} pieces
 * @returns {string[]}
 */
export function texts(pieces) {
  let decoder = new TextDecoder();
  return pieces.map((piece, n) => {
    if (typeof piece === "string") {
      decoder = new TextDecoder();
      return visible(piece);
    }
    const more = Array.isArray(pieces[n + 1]);
    const text = decoder.decode(new Uint8Array(piece), { stream: more });
    if (!more) decoder = new TextDecoder();
    return visible(text);
  });
}
