/** What is searched for: the context, the length, the width of the beam, the budget of exact. */

import { h } from "../dom.js";
import { field } from "../form.js";
import { markBlanks } from "../marked_text.js";

const NUMBERS = [
  ["max_tokens", "Tokens at most", "Exact search finds few; long texts take beyond its budget."],
  ["num_beams", "Beams", "Prefixes that beam search keeps at each step."],
  ["max_expansions", "Expansions", "Prefixes that exact search may ask about."],
  ["seconds", "Seconds", "After this long exact search tells what it has."],
];

export class DecodeForm {
  /** @param {{onChange: (patch: object) => void, onStream: () => void, onStop: () => void}} options */
  constructor({ onChange, onStream, onStop }) {
    this.onChange = onChange;
    this.controls = {};
    this.marks = [];
    this.start = h("button", { type: "button", on: { click: onStream } }, "Stream greedy");
    this.stop = h("button", { type: "button", disabled: true, on: { click: onStop } }, "Stop");
    this.element = h(
      "form",
      { class: "stack", novalidate: true, on: { submit: (event) => event.preventDefault() } },
      this.text("context", "Context", 3, "What is to be continued."),
      h("div", { class: "decode-numbers" }, ...NUMBERS.map((one) => this.number(...one))),
      this.text("stop", "Stops, one a line", 2, "Texts that end a completion; \\n is a line break."),
      h("div", { class: "actions" }, this.start, this.stop),
    );
  }

  /** Show a state. */
  fill(state) {
    for (const [name, control] of Object.entries(this.controls)) control.value = state[name];
    this.marks.forEach((marked) => marked.refresh());
  }

  showStreaming(isRunning) {
    this.stop.disabled = !isRunning;
  }

  text(name, label, rows, hint) {
    const control = h("textarea", { rows, spellcheck: "false", autocapitalize: "off" });
    const shown = this.added(name, label, hint, control);
    this.marks.push(markBlanks(control));
    return shown;
  }

  number(name, label, hint) {
    const shown = this.added(name, label, hint, h("input", { type: "number", step: "any" }));
    if (name === "seconds") shown.dataset.name = "timeout_ms";
    return shown;
  }

  added(name, label, hint, control) {
    this.controls[name] = control;
    control.addEventListener("input", () => this.onChange({ [name]: control.value }));
    return field({ name, label, hint, control });
  }
}
