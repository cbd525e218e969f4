/** The server's routes. Waits where the server says that waiting helps, and asks for a key once. */

/** The server's root, without a slash at its end, wherever a proxy has put it. */
export const BASE = new URL("..", import.meta.url).href.replace(/\/$/, "");

/** An error that the API answered with, or code "unreachable" where there was no answer. */
export class ApiError extends Error {
  constructor(message, { status = 0, param = null, code, retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { name: "ApiError", status, param, code, retryAfter });
  }
}

const BRIEF = new Set([429, 502, 503]);
/** Statuses that pass: a full queue, a server that loads, and a proxy without one behind it. */

export class Api {
  #server;
  #askKey;
  #key;
  #keyAsked;

  /**
   * @param {import("./server.js").Server} server told of what does not pass, and waits until it does
   * @param {(wasWrong: boolean) => Promise<string>} askKey rejects where the person gives none
   */
  constructor(server, askKey) {
    this.#server = server;
    this.#askKey = askKey;
  }

  /** Whether the server wants a key, as far as is known. */
  get hasKey() {
    return this.#key !== undefined;
  }

  /** The answer to a GET, as JSON. */
  get(path, { signal } = {}) {
    return this.#json("GET", path, undefined, signal);
  }

  /** The answer to a POST of a JSON body, as JSON. */
  post(path, body, { signal } = {}) {
    return this.#json("POST", path, body, signal);
  }

  /**
   * The server-sent events of an answer; leaving the loop ends the request.
   *
   * @returns {AsyncGenerator<{event: string, data: any}>}
   */
  async *stream(path, body, { signal } = {}) {
    const response = await this.#fetch("POST", path, body, signal);
    const { events } = await import("./events.js");
    yield* events(response.body);
  }

  async #json(method, path, body, signal) {
    return (await this.#fetch(method, path, body, signal)).json();
  }

  /** The response to a request that has succeeded. */
  async #fetch(method, path, body, signal) {
    for (;;) {
      const key = this.#key;
      const response = await this.#attempt(method, path, body, signal);
      if (response instanceof ApiError) {
        await this.#server.recover(response, signal);
      } else if (response.ok) {
        this.#server.answered();
        return response;
      } else {
        const error = await errorOf(response);
        if (error.status === 401) await this.#newKey(key);
        else if (isPassing(error)) await this.#server.recover(error, signal);
        else throw error;
      }
    }
  }

  async #attempt(method, path, body, signal) {
    const headers = { Accept: "application/json" };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (this.#key !== undefined) headers.Authorization = `Bearer ${this.#key}`;
    const content = body === undefined ? undefined : JSON.stringify(body);
    try {
      return await fetch(BASE + path, { method, headers, body: content, signal });
    } catch (error) {
      if (signal?.aborted) throw error;
      return new ApiError("The server does not answer.", { code: "unreachable" });
    }
  }

  /** Ask once, however many requests were refused with the same key. */
  async #newKey(refused) {
    if (this.#key !== refused) return;
    this.#keyAsked ??= this.#askKey(refused !== undefined).finally(() => {
      this.#keyAsked = undefined;
    });
    this.#key = await this.#keyAsked;
  }
}

/** Whether the same request may be answered a little later. */
function isPassing({ status, code, retryAfter }) {
  return BRIEF.has(status) && (retryAfter !== null || status !== 429 || code === "queue_full");
}

async function errorOf(response) {
  const retryAfter = Number.parseFloat(response.headers.get("Retry-After"));
  const more = {
    status: response.status,
    retryAfter: Number.isFinite(retryAfter) ? retryAfter : null,
  };
  try {
    const { error } = await response.json();
    return new ApiError(error.message, { ...more, param: error.param, code: error.code });
  } catch {
    // Not one of this server's errors: a proxy's page, say.
    return new ApiError(`The server answered with status ${response.status}.`, more);
  }
}
