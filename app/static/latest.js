/** Work of which only the newest matters, such as an answer to where a slider stands. */

export class Latest {
  #running;
  #waiting;

  /**
   * Do this as soon as what runs has ended; whatever still waits is forgotten.
   *
   * @template T
   * @param {(signal: AbortSignal) => Promise<T>} work
   * @param {(result: T) => void} onDone
   * @param {(error: Error) => void} onError not called for work that was cancelled
   */
  run(work, onDone, onError) {
    this.#waiting = { work, onDone, onError };
    if (!this.#running) this.#next();
  }

  /** End what runs, and forget what waits. */
  cancel() {
    this.#waiting = undefined;
    this.#running?.abort();
  }

  get isBusy() {
    return Boolean(this.#running);
  }

  async #next() {
    const { work, onDone, onError } = this.#waiting;
    this.#waiting = undefined;
    const running = (this.#running = new AbortController());
    try {
      const result = await work(running.signal);
      if (!running.signal.aborted) onDone(result);
    } catch (error) {
      if (!running.signal.aborted) onError(error);
    } finally {
      this.#running = undefined;
    }
    if (this.#waiting) this.#next();
  }
}
