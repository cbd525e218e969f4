/** What the server is doing when it does not answer, said in words, until it answers again. */

import { BASE } from "./api.js";
import { plural } from "./format.js";

const FIRST_S = 0.5;
const LAST_S = 5;

/** What is said, by why there was no answer. */
const WORDS = {
  unreachable: "The server cannot be reached. The page goes on as soon as it answers again.",
  loading: "The model is being loaded. The page goes on as soon as it is ready.",
  full: "The server has as much work as it can take.",
  stopping: "The server is about to stop. The page goes on as soon as one answers again.",
  failed: "The server is not ready. The page goes on as soon as it is.",
};

const REASONS = { loading: "loading", draining: "stopping", stopped: "stopping" };

export class Server {
  #element;
  #recovering;

  /** @param {HTMLElement} element a status region that is hidden while there is nothing to say */
  constructor(element) {
    this.#element = element;
  }

  /** An answer has come. */
  answered() {
    if (!this.#recovering) this.#say("");
  }

  /**
   * Wait until it is worth asking again. All that wait, wait together.
   *
   * @param {import("./api.js").ApiError} error why the last request was not answered
   * @param {AbortSignal} [signal] ends the wait of this caller
   */
  recover(error, signal) {
    this.#recovering ??= this.#recover(error).finally(() => {
      this.#recovering = undefined;
      this.#say("");
    });
    return signal ? Promise.race([this.#recovering, aborted(signal)]) : this.#recovering;
  }

  async #recover(error) {
    if (error.status === 429) {
      await this.#countDown(error.retryAfter ?? 1);
      return;
    }
    for (let wait = FIRST_S; ; wait = Math.min(LAST_S, wait * 1.5)) {
      const state = await stateNow();
      if (state === "ready") return;
      this.#say(WORDS[state]);
      await seconds(wait);
    }
  }

  async #countDown(wait) {
    for (let left = Math.ceil(wait); left > 0; left--) {
      this.#say(`${WORDS.full} The page asks again in ${plural(left, "second")}.`);
      await seconds(1);
    }
  }

  #say(text) {
    if (this.#element.textContent !== text) this.#element.textContent = text;
    this.#element.hidden = !text;
  }
}

/** "ready", or a key of WORDS. */
async function stateNow() {
  try {
    const response = await fetch(`${BASE}/health`, { cache: "no-store" });
    if (response.ok) return "ready";
    const { status } = await response.json();
    return REASONS[status] ?? "failed";
  } catch {
    return "unreachable";
  }
}

const seconds = (count) => new Promise((resolve) => setTimeout(resolve, count * 1000));

function aborted(signal) {
  return new Promise((_, reject) => {
    const end = () => reject(signal.reason);
    if (signal.aborted) end();
    else signal.addEventListener("abort", end, { once: true });
  });
}
