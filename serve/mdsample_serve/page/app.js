// The page: what is asked for, the run as it comes, and what one takes away from it.

import { Refused, Server } from "./api.js";
import { element } from "./dom.js";
import { Film } from "./film.js";
import { Player } from "./player.js";
import { PolicyEditor } from "./policy.js";
import { download, saved } from "./save.js";

/** @template {HTMLElement} [T=HTMLElement] @param {string} id @returns {T} */
const by = (id) => /** @type {T} */ (document.getElementById(id));
/** @param {string} id */
const input = (id) => /** @type {HTMLInputElement} */ (by(id));

const server = new Server();
const player = new Player(by("player"));
/** @param {string} policy */
const explain = (policy) => server.json("v1/explain", { model: model(), ...optional({ policy, template: input("template").value }) });
const first = new PolicyEditor("Policy", explain), second = new PolicyEditor("Policy B", explain);
/** @type {{header: any, steps: any[], record: any}[]} */
let films = [];
/** @type {AbortController | null} */
let running = null;

const model = () => input("model").value;
/** Without what is empty. @param {Record<string, string>} values */
const optional = (values) => Object.fromEntries(Object.entries(values).filter(([, value]) => value !== ""));
const editors = () => (input("compare").checked ? [first, second] : [first]);

/** The fields of the template, in their order; the model's own has `prompt` alone. */
function fieldNames() {
  const template = input("template").value;
  if (!template.trim()) return ["prompt"];
  return [...new Set([...template.matchAll(/(?<!\{)\{([^\W\d]\w*)\}(?!\})/gu)].map((found) => found[1]))];
}

/** What the reader wrote into a field. @param {string} name */
const fieldText = (name) => /** @type {HTMLTextAreaElement} */ (by(name === "prompt" ? "prompt" : `field-${name}`)).value;

/** Shows an input for each of the template's fields. */
function showFields() {
  const names = fieldNames(), had = new Map([...by("fields").querySelectorAll("textarea")].map((x) => [x.id, x.value]));
  by("prompt").hidden = by("prompt-label").hidden = !names.includes("prompt");
  by("fields").replaceChildren(...names.filter((name) => name !== "prompt").flatMap((name) => {
    const id = `field-${name}`;
    return [element("label", { for: id }, name), element("textarea", { id, rows: 2, value: had.get(id) ?? "" })];
  }));
}

/**
 * The request for one policy.
 * @param {string} policy
 * @returns {{model: string, fields: Record<string, string>, seed: number, policy?: string, template?: string}}
 */
function request(policy) {
  const fields = Object.fromEntries(fieldNames().map((name) => [name, fieldText(name)]));
  return {
    model: model(), ...optional({ template: input("template").value, policy }), fields,
    seed: Number(input("seed").value) || 0,
  };
}

/** @param {string} message */
function complain(message) {
  by("error").hidden = !message;
  by("error").textContent = message;
}

/** @param {unknown} fault */
function failed(fault) {
  if (fault instanceof Refused && fault.status === 401) by("key-box").hidden = false;
  complain(fault instanceof Refused ? fault.message : `The page has a fault: ${fault}`);
}

/** Runs what is asked for, with one policy or two at once. */
async function run() {
  running?.abort();
  const mine = running = new AbortController();
  complain("");
  busy(true);
  const asked = editors().map((editor) => editor.text);
  const shown = asked.map(() => /** @type {Film | null} */ (null));
  const kept = films = asked.map(() => ({ header: /** @type {any} */ (null), steps: /** @type {any[]} */ ([]), record: null }));
  try {
    await Promise.all(asked.map(async (policy, n) => {
      for await (const { type, ...object } of server.stream("v1/fill", { ...request(policy), stream: true, trace: true }, mine.signal)) {
        if (type === "header") {
          kept[n].header = { ...object, asked: policy };
          shown[n] = new Film(kept[n].header);
          if (shown.every((film) => film)) open(/** @type {Film[]} */ (shown));
        } else if (type === "step") {
          kept[n].steps.push(object);
          shown[n]?.add(object);
        } else if (type === "record") {
          kept[n].record = object;
          shown[n]?.finish(object);
        }
        if (running === mine) by("state").textContent = shown.map((film) => `step ${film?.steps ?? 0}`).join(", ");
        player.grown();
      }
    }));
    if (running === mine) by("state").textContent = "";
  } catch (fault) {
    if (running !== mine) return;
    by("state").textContent = mine.signal.aborted ? "cancelled" : "";
    if (!mine.signal.aborted) failed(fault);
    mine.abort();
  } finally {
    if (running === mine) busy(false);
  }
}

/** @param {Film[]} shown */
function open(shown) {
  by("empty").hidden = true;
  by("player").hidden = false;
  player.open(shown);
  player.live = true;
  if (matchMedia("(max-width: 860px)").matches) by("result").scrollIntoView();
}

/** @param {boolean} on */
function busy(on) {
  if (!on) running = null;
  by("cancel").hidden = !on;
  by("run").hidden = on;
  input("save").disabled = on || !films.some((film) => film.header);
  if (on) by("cancel").focus();
  else if (document.activeElement === document.body) by("run").focus();
}

/** Puts a text on the clipboard, or shows it where there is none. @param {string} text @param {HTMLElement} button */
async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    by("state").textContent = `${button.textContent} copied`;
  } catch {
    by("copied-text").textContent = text;
    /** @type {HTMLDialogElement} */ (by("copied")).showModal();
  }
}

/** One command for a shell that does the same. */
function curl() {
  const body = JSON.stringify(request(first.text), null, 1).replaceAll("'", "'\\''");
  const key = server.key ? " \\\n  -H \"Authorization: Bearer $KEY\"" : "";
  return `curl ${location.origin}/v1/fill -H 'Content-Type: application/json'${key} \\\n  -d '${body}'`;
}

/** The lines of Python that do the same. */
function python() {
  const { model: name, template, policy, fields, seed } = request(first.text), text = JSON.stringify;
  const names = Object.keys(fields);
  const prompt = names.length === 1 && names[0] === "prompt" ? text(fields.prompt) : text(fields);
  const settings = [...(policy ? [`policy=${text(policy)}`] : []), ...(template ? [`template=${text(template)}`] : []),
    `seed=${seed}`].join(", ");
  return `import mdsample\n\nmodel = mdsample.load(${text(name)})\nrow = mdsample.sample(model, ${prompt}, ${settings})\nprint(row.text)\n`;
}

/** Asks the server for its models and its menu. */
async function begin() {
  try {
    const [models, menu] = await Promise.all([server.json("v1/models"), server.json("v1/policies")]);
    by("model").replaceChildren(...models.data.map((/** @type {any} */ one) =>
      element("option", { value: one.id }, one.id)));
    for (const editor of [first, second]) editor.open(menu);
    complain("");
  } catch (fault) {
    failed(fault);
  }
}

by("policies").append(first.root, second.root);
second.root.hidden = true;
input("compare").addEventListener("change", () => {
  second.root.hidden = !input("compare").checked;
  if (!second.text) second.text = "one-by-one";
});
by("template").addEventListener("input", showFields);
by("form").addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
by("form").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run();
});
by("cancel").addEventListener("click", () => running?.abort());
input("key").addEventListener("change", () => {
  server.key = input("key").value;
  begin();
});
by("copy-policy").addEventListener("click", (event) => copy(first.text, /** @type {HTMLElement} */ (event.target)));
by("copy-curl").addEventListener("click", (event) => copy(curl(), /** @type {HTMLElement} */ (event.target)));
by("copy-python").addEventListener("click", (event) => copy(python(), /** @type {HTMLElement} */ (event.target)));
by("save").addEventListener("click", async () => download("mdsample.html", await saved(films.filter((film) => film.header))));
begin();
