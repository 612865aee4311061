// What the player's modules hand each other, for editors and `tsc --checkJs`; nothing of it is served.

/** A token's text, or the bytes of one that is part of a letter. */
export type Piece = string | number[];

export interface Runner {
  text: Piece;
  probability: number;
}

/** A prediction for a position: its best token, the second one, their probabilities, nats. */
export interface Seen {
  text: Piece;
  probability: number;
  second: number;
  /** null where it is not known */
  runner: Piece | null;
  entropy: number;
}

/** One position at one moment. */
export interface Cell {
  /** fixed, blank or written */
  kind: string;
  text: Piece;
  /** a token that ends a text */
  end: boolean;
  /** the frame that wrote it, from 1; 0 where none did */
  step: number;
  /** of the token under the model */
  probability: number;
  /** of the position when it was written, nats */
  entropy: number;
  /** of the position's most probable token */
  confidence: number;
  /** written by rule, without a prediction */
  ruled: boolean;
  /** took the place of another token */
  rewritten: boolean;
  /** how often the position became blank again */
  remasked: number;
  /** more probable tokens that were not drawn, where they are known */
  others: Runner[];
  /** probability of the second best, and its text, where they are known */
  second: number;
  runner: Piece | null;
}

export interface Change {
  at: number;
  from: Cell;
  to: Cell;
}

export interface Frame {
  changes: Change[];
  /** what was predicted before the step, by position, where it is known */
  seen: Map<number, Seen>;
  /** tokens written in this step, by rule included */
  wrote: number;
  /** positions that this step made blank again */
  remasked: number;
  /** forward passes so far, and those that followed one another */
  passes: number;
  rounds: number;
  /** blanks that are filled now */
  filled: number;
  /** Σ b (nats) and Σ d so far; infinite once something was remasked or rewritten */
  bound: number;
  differ: number;
  /** of the answer's slot before the step, nats, where it is known */
  entropy: number | null;
  /** why the row left, if it did */
  outcome: string;
}

export interface Look {
  row: number[];
  position: number[];
  text: Piece[];
  probability: number[];
  second: number[];
  runner?: (Piece | null)[];
  entropy: number[];
}

/** A step line of a trace, with the texts of what was written; `look` and `others` where they were asked for. */
export interface Step {
  rows: number[];
  row: number[];
  position: number[];
  token: number[];
  text: Piece[];
  probability: number[];
  entropy: number[];
  confidence: number[];
  ruled: boolean[];
  remasked_row: number[];
  remasked_position: number[];
  left: number[];
  outcomes: string[][];
  price: number | number[];
  look?: Look;
  others?: Runner[][];
}

export interface Row {
  id: string | number;
  tokens: number[];
  slot: number[];
  blank: boolean[];
  /** whether error bounds speak of the row; missing in older files: they do */
  bounded?: boolean;
  text: Piece[];
}

/** A trace's header, with its rows. */
export type Header = Record<string, any> & { canvas: Row[]; slots: string[] };

export interface Film {
  header: Header;
  steps: Step[];
  record?: Record<string, any> | null;
}

export interface Setting {
  name: string;
  default: string;
  domain: string;
}

/** A part or preset, as `GET /v1/policies` tells it. */
export interface Entry {
  name: string;
  settings: Setting[];
  summary: string;
  about: string;
  /** of a preset: what it stands for */
  parts: string;
}

export interface Menu {
  seats: { seat: string; question: string; many: boolean; parts: Entry[] }[];
  presets: Entry[];
}
