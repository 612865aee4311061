// What the page asks of its server.

/** An answer that is no answer, in words for people. */
export class Refused extends Error {
  /** @param {string} message @param {number} status */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** The server that this page came from. */
export class Server {
  constructor() { this.key = ""; }

  /**
   * @param {string} path
   * @param {object} [body]  given: it is posted
   * @param {AbortSignal} [signal]
   */
  async ask(path, body, signal) {
    const headers = {
      ...(body ? { "Content-Type": "application/json" } : {}),
      ...(this.key ? { Authorization: `Bearer ${this.key}` } : {}),
    };
    let answer;
    try {
      answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
    } catch (fault) {
      if (signal?.aborted) throw fault;
      throw new Refused("The server does not answer. Is it still running?", 0);
    }
    if (!answer.ok) throw new Refused(await reason(answer), answer.status);
    return answer;
  }

  /** @param {string} path @param {object} [body] @param {AbortSignal} [signal] */
  async json(path, body, signal) { return (await this.ask(path, body, signal)).json(); }

  /**
   * What the server sends, object by object, as it comes.
   * @param {string} path
   * @param {object} body
   * @param {AbortSignal} signal
   */
  async *stream(path, body, signal) {
    const answer = await this.ask(path, body, signal);
    const reader = /** @type {ReadableStream<Uint8Array>} */ (answer.body).getReader(), decoder = new TextDecoder();
    let text = "";
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) throw new Refused("The server broke off before the text was done.", 0);
        text += decoder.decode(value, { stream: true });
        const events = text.split(/\r?\n\r?\n/);
        text = events.pop() ?? "";
        for (const event of events) {
          const data = event.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim());
          if (!data.length) continue;
          if (data[0] === "[DONE]") return;
          const object = JSON.parse(data.join("\n"));
          if (object.error) throw new Refused(object.error.message, 0);
          yield object;
        }
      }
    } finally {
      reader.cancel().catch(() => {});
    }
  }
}

/** @param {Response} answer */
async function reason(answer) {
  const text = await answer.text();
  let said = "";
  try {
    said = JSON.parse(text).error.message;
  } catch {
    said = text.slice(0, 300);
  }
  const wait = answer.headers.get("Retry-After");
  if (answer.status === 429) return `The server is busy${wait ? `; try again in ${wait} s` : ""}. ${said}`;
  if (answer.status === 401) return "This server asks for a key; give it above.";
  return said || `The server answers ${answer.status}.`;
}
