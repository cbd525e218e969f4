/** What is asked: context, candidates and how they are compared. */

import { h } from "../dom.js";
import { field, showError } from "../form.js";
import { markBlanks } from "../marked_text.js";
import { CandidateEditor } from "./score_candidates.js";

const NORMALIZATIONS = [
  ["sum", "sum: log P of the whole text"],
  ["mean", "mean: per token"],
  ["per_char", "per_char: per character"],
  ["per_byte", "per_byte: per UTF-8 byte"],
  ["gnmt", "gnmt: between sum and mean"],
  ["pmi", "pmi: what the context adds"],
  ["calibrated", "calibrated: against contexts that say nothing"],
];

const BOUNDARIES = [
  ["", "joint (default): tokenized together"],
  ["separate", "separate: each tokenized alone"],
  ["marginal", "marginal: every way to spell it"],
];

const BOS = [
  ["", "the tokenizer's own rule"],
  ["yes", "add it"],
  ["no", "leave it out"],
];

/** The fields, by the names that the API has for them; reads and fills the view's state. */
export class ScoreForm {
  /**
   * @param {object} options
   * @param {() => void} options.onChange after every change
   * @param {() => void} options.onSubmit when the button is pressed
   * @param {(text: string) => void} options.say
   */
  constructor({ onChange, onSubmit, say }) {
    this.onChange = onChange;
    this.controls = {};
    this.marks = [];
    this.candidates = new CandidateEditor({ onChange, say });
    const submit = (event) => {
      event.preventDefault();
      onSubmit();
    };
    this.element = h("form", { class: "score-form", novalidate: true, on: { submit } });
    this.element.append(
      this.text(
        "context",
        "Context",
        2,
        "What is given. Blanks at line ends are marked: after a trailing space a word is another token.",
      ),
      field({
        name: "candidates",
        label: "Candidates",
        hint: "One a row; words carry their space in front (·). Shift+Enter breaks a line; many pasted lines become many rows.",
        control: this.candidates.element,
      }),
      this.options(),
      h("button", { type: "submit", class: "primary" }, "Score"),
    );
  }

  options() {
    this.pmi = this.text(
      "pmi_context",
      "Compared with",
      1,
      "The context without what matters, such as “Answer:”.",
    );
    this.calibrated = this.text(
      "calibration_contexts",
      "Compared with, one a line",
      2,
      "Contexts that say nothing, such as “N/A”.",
    );
    this.gnmt = this.number("gnmt_alpha", "Exponent", "0.6 if empty; 0 is the sum.");
    this.expansions = this.number(
      "max_expansions",
      "Token paths for each",
      "256 if empty; too few give bounds.",
    );
    return h(
      "div",
      { class: "score-options" },
      this.select("normalization", "Normalization", NORMALIZATIONS, "What they are ranked by."),
      this.gnmt,
      this.pmi,
      this.calibrated,
      this.select("boundary", "Boundary", BOUNDARIES, "How context and candidate meet."),
      this.expansions,
      h(
        "details",
        {},
        h("summary", {}, "More"),
        this.number("temperature", "Temperature", "Of the shares alone; scores stay."),
        this.checkbox("append_eos", "Append the end", "Score the end of the text too."),
        this.select("add_bos", "Begin-of-text token", BOS, "Put before the context."),
      ),
    );
  }

  text(name, label, rows, hint) {
    const input = h("textarea", { rows, spellcheck: "false", autocapitalize: "off" });
    const shown = this.added(name, label, hint, input, "input");
    this.marks.push(markBlanks(input));
    return shown;
  }

  number(name, label, hint) {
    return this.added(name, label, hint, h("input", { type: "number", step: "any" }), "input");
  }

  select(name, label, options, hint) {
    const input = h("select", {}, ...options.map(([value, text]) => h("option", { value }, text)));
    return this.added(name, label, hint, input, "change");
  }

  checkbox(name, label, hint) {
    return this.added(name, label, hint, h("input", { type: "checkbox" }), "change");
  }

  added(name, label, hint, control, event) {
    this.controls[name] = control;
    control.addEventListener(event, () => {
      this.hideWhatDoesNotApply();
      this.onChange();
    });
    return field({ name, label, hint, control });
  }

  /** The fields' values. */
  read() {
    const values = Object.entries(this.controls).map(([name, control]) => [
      name,
      control.type === "checkbox" ? control.checked : control.value,
    ]);
    return { ...Object.fromEntries(values), candidates: this.candidates.value };
  }

  /** Show a state. */
  fill(state) {
    for (const [name, control] of Object.entries(this.controls)) {
      if (control.type === "checkbox") control.checked = state[name];
      else control.value = state[name];
    }
    this.candidates.value = state.candidates;
    this.marks.forEach((marked) => marked.refresh());
    this.hideWhatDoesNotApply();
  }

  /** Show the API's error at its field, wherever that is folded away. */
  showError(error) {
    showError(this.element, error);
    const folded = this.element.querySelector("details:not([open]) .error")?.closest("details");
    if (!folded) return;
    folded.open = true;
    folded.querySelector("[aria-invalid=true]")?.focus();
  }

  hideWhatDoesNotApply() {
    const { normalization, boundary } = this.controls;
    this.gnmt.hidden = normalization.value !== "gnmt";
    this.pmi.hidden = normalization.value !== "pmi";
    this.calibrated.hidden = normalization.value !== "calibrated";
    this.expansions.hidden = boundary.value !== "marginal";
  }
}
