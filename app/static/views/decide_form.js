/** An input, questions about it, and the orders in which their options are shown. */

import { h } from "../dom.js";
import { field } from "../form.js";

const TYPES = [
  ["predicate", "predicate: is it true?"],
  ["choice", "choice: which one?"],
  ["score", "score: how much?"],
];

const DEBIAS = [
  ["none", "none: as written"],
  ["cyclic", "cyclic: each option once at each place"],
  ["all", "all: every order, of up to 4 options"],
];

const OPTIONS = {
  predicate: ["options", ""],
  choice: ["choices", "One a line; behind “ | ” what is shown beside it."],
  score: ["levels", "One a line, from the lowest; behind “ | ” what is shown beside it."],
};
/** What the API calls the options of each type, and how they are written. */

const NEW = { type: "choice", instructions: "Which one is it?", options: "yes\nno\nperhaps" };

export class DecideForm {
  /** @param {{onChange: (patch: object) => void}} options */
  constructor({ onChange }) {
    this.onChange = onChange;
    this.input = h("textarea", { rows: 4, spellcheck: "false" });
    this.input.addEventListener("input", () => onChange({ input: this.input.value }));
    this.debias = this.select("debias", DEBIAS);
    this.calibration = this.select("calibration", [["", "none"]]);
    this.list = h("div", { class: "stack" });
    this.element = h(
      "form",
      { class: "stack", novalidate: true, on: { submit: (event) => event.preventDefault() } },
      field({ name: "input", label: "Input", hint: "What the questions are about.", control: this.input }),
      h("div", { dataset: { name: "questions" }, class: "stack" }, this.list),
      h("button", { type: "button", on: { click: () => this.add() } }, "Add a question"),
      field({
        name: "debias",
        label: "Option orders",
        hint: "Models prefer options by their place; averaging over orders takes that out.",
        control: this.debias,
      }),
      field({
        name: "calibration",
        label: "Calibration",
        hint: "Makes probabilities say how often they are right.",
        control: this.calibration,
      }),
    );
  }

  /** The names of the server's calibrations. */
  offerCalibrations(names) {
    this.calibration.append(...names.map((name) => h("option", { value: name }, name)));
    this.calibration.value = this.wanted ?? "";
  }

  /** Show a state. */
  fill({ input, questions, debias, calibration }) {
    this.input.value = input;
    this.debias.value = debias;
    this.wanted = calibration;
    this.calibration.value = calibration;
    this.questions = questions.map((question) => ({ ...NEW, ...question }));
    this.draw();
  }

  select(name, options) {
    const control = h("select", {}, ...options.map(([value, text]) => h("option", { value }, text)));
    control.addEventListener("change", () => this.onChange({ [name]: control.value }));
    return control;
  }

  draw() {
    this.list.replaceChildren(...this.questions.map((question, place) => this.one(question, place)));
  }

  one(question, place) {
    const name = `questions.${place}`;
    const [optionsName, hint] = OPTIONS[question.type] ?? OPTIONS.choice;
    const type = h("select", {}, ...TYPES.map(([value, text]) => h("option", { value }, text)));
    type.value = question.type;
    type.addEventListener("change", () => {
      this.edit(place, { type: type.value });
      this.draw();
      this.list.children[place].querySelector("select").focus();
    });
    const remove = () => {
      this.questions.splice(place, 1);
      this.draw();
      this.tell();
    };
    return h(
      "fieldset",
      { class: "card stack question", dataset: { name } },
      h("legend", { class: "visually-hidden" }, `Question ${place + 1}`),
      field({ name: `${name}.type`, label: `Question ${place + 1}`, control: type }),
      this.typed(place, "instructions", `${name}.instructions`, "Instructions", 2),
      question.type === "predicate"
        ? null
        : this.typed(place, "options", `${name}.${optionsName}`, "Options", 3, hint),
      h(
        "button",
        { type: "button", disabled: this.questions.length === 1, on: { click: remove } },
        `Remove question ${place + 1}`,
      ),
    );
  }

  typed(place, key, name, label, rows, hint) {
    const control = h("textarea", { rows, value: this.questions[place][key] });
    control.addEventListener("input", () => this.edit(place, { [key]: control.value }));
    return field({ name, label, hint, control });
  }

  edit(place, patch) {
    Object.assign(this.questions[place], patch);
    this.tell();
  }

  add() {
    this.questions.push({ ...NEW });
    this.draw();
    this.list.lastElementChild.querySelector("select").focus();
    this.tell();
  }

  tell() {
    this.onChange({ questions: this.questions.map((question) => ({ ...question })) });
  }
}
