// A run as one HTML file, put together from the page's own files. The Python of `saved.py` does the same.

const MODULES = ["dom.js", "film.js", "chart.js", "readout.js", "view.js", "player.js", "single.js"];
const IMPORTS = /^import .*?;\n|^export (?=class|function|const)/gms;

/**
 * @param {object[]} films  each with `header`, `steps` and perhaps `record`
 * @returns {Promise<string>}
 */
export async function saved(films) {
  const [page, style, ...modules] = await Promise.all(["saved.html", "style.css", ...MODULES].map(
    async (name) => (await fetch(name)).text()));
  /** @type {Record<string, string>} */
  const pieces = {
    STYLE: style,
    DATA: JSON.stringify({ films, row: 0 }).replaceAll("<", "\\u003c"),
    SCRIPT: modules.map((text) => text.replace(IMPORTS, "")).join(""),
  };
  return page.replace(/\/\*(STYLE|DATA|SCRIPT)\*\//g, (_, name) => pieces[name]);
}

/** Gives the reader a file. @param {string} name @param {string} html */
export function download(name, html) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([html], { type: "text/html" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
