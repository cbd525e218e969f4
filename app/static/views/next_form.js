/** What is asked about the next token: the context, labels, and how the distribution is bent. */

import { h } from "../dom.js";
import { field } from "../form.js";
import { markBlanks } from "../marked_text.js";

const TYPING_MS = 300;

const SLIDERS = {
  temperature: {
    label: "Temperature",
    hint: "Below 1 the probable becomes more probable; the model's own numbers stay beside it.",
    range: { min: 0.1, max: 3, step: 0.05 },
  },
  top_p: {
    label: "Top-p",
    hint: "Only the most probable tokens that together reach this much are kept.",
    range: { min: 0.05, max: 1, step: 0.01 },
  },
};

export class NextForm {
  /**
   * @param {object} options
   * @param {(patch: object) => void} options.onChange the fields that have changed, as strings
   * @param {() => void} options.onUndo take the last appended token away
   */
  constructor({ onChange, onUndo }) {
    this.onChange = onChange;
    this.controls = {};
    this.marks = [];
    this.undo = h("button", { type: "button", on: { click: onUndo } }, "Take the last token back");
    this.element = h(
      "form",
      { class: "stack", novalidate: true, on: { submit: (event) => event.preventDefault() } },
      this.text("context", "Context", 3, "Choose a token to put it at the end."),
      this.undo,
      ...Object.keys(SLIDERS).map((name) => this.slider(name)),
      this.text("labels", "Labels, one a line", 3, "Told whatever their rank. Each is one token."),
      this.count(),
    );
  }

  /** Show a state. */
  fill(state) {
    for (const [name, control] of Object.entries(this.controls)) {
      if (control !== document.activeElement || control.type !== "range") {
        control.value = state[name];
      }
      control.dispatchEvent(new Event("filled"));
    }
    this.marks.forEach((marked) => marked.refresh());
    this.undo.hidden = state.appended.length === 0;
  }

  text(name, label, rows, hint) {
    const control = h("textarea", { rows, spellcheck: "false", autocapitalize: "off" });
    let typing;
    control.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => this.typed(name, control.value), TYPING_MS);
    });
    this.controls[name] = control;
    const shown = field({ name, label, hint, control });
    this.marks.push(markBlanks(control));
    return shown;
  }

  /** A context that was typed into is no longer one that was walked to. */
  typed(name, value) {
    this.onChange(name === "context" ? { context: value, appended: [] } : { [name]: value });
    if (name === "context") this.undo.hidden = true;
  }

  slider(name) {
    const { label, hint, range } = SLIDERS[name];
    const control = h("input", { type: "range", ...range });
    const shown = h("output", { class: "number" });
    const tell = () => (shown.textContent = Number(control.value).toFixed(2));
    control.addEventListener("filled", tell);
    control.addEventListener("input", () => {
      tell();
      this.onChange({ [name]: control.value });
    });
    this.controls[name] = control;
    const found = field({ name, label, hint, control });
    found.querySelector("label").append(" ", shown);
    return found;
  }

  count() {
    const control = h("input", { type: "number", min: 1, max: 1000, step: 1 });
    control.addEventListener("input", () => this.onChange({ top_k: control.value }));
    this.controls.top_k = control;
    return field({ name: "top_k", label: "Tokens shown", control });
  }
}
