/** The view Decide: questions about an input, how sure the model is, and what order does to it. */

import { bar } from "../bars.js";
import { h } from "../dom.js";
import { percent, plural } from "../format.js";
import { clearErrors, showError } from "../form.js";
import { Latest } from "../latest.js";
import { DecideForm } from "./decide_form.js";

const PATH = "/v1/decisions";
const TYPING_MS = 400;

class DecideView {
  constructor(root, page) {
    this.page = page;
    this.latest = new Latest();
    this.form = new DecideForm({ onChange: (patch) => this.changed(patch) });
    this.results = h("div", { class: "stack" });
    root.append(h("div", { class: "columns" }, this.form.element, this.results));
    page.api
      .get("/v1/calibrations")
      .then(({ data }) => this.form.offerCalibrations(data.map(({ name }) => name)))
      .catch((error) => page.say(`Calibrations are not listed: ${error.message}`));
  }

  show(state) {
    this.state = { ...state };
    this.form.fill(this.state);
    this.run();
  }

  changed(patch) {
    Object.assign(this.state, patch);
    this.page.change(patch);
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.run(), TYPING_MS);
  }

  leave() {
    clearTimeout(this.typing);
  }

  run() {
    const body = bodyOf(this.state);
    this.page.sent(PATH, body);
    this.latest.run(
      (signal) => this.page.api.post(PATH, body, { signal }),
      (answer) => this.answered(body, answer),
      (error) => {
        this.results.classList.add("stale");
        showError(this.form.element, error);
      },
    );
  }

  answered(body, { answers, timings_ms: timings }) {
    clearErrors(this.form.element);
    this.results.classList.remove("stale");
    this.results.replaceChildren(
      ...answers.map((answer, place) => card(body.questions[place], answer)),
    );
    this.page.say(`${plural(answers.length, "answer")} in ${Math.round(timings.total)} ms`);
  }
}

/** Lines of options: a value, and behind " | " what is shown beside it. */
function optionsOf(text) {
  return text
    .split("\n")
    .filter((line) => line.trim() !== "")
    .map((line) => {
      const [value, ...rest] = line.split(" | ");
      return { value: value.trim(), description: rest.join(" | ").trim() || undefined };
    });
}

const QUESTIONS = {
  predicate: () => ({}),
  choice: (options) => ({ choices: options }),
  score: (options) => ({
    levels: options.map(({ value, description }) => ({ label: value, description })),
  }),
};

function bodyOf({ input, questions, debias, calibration }) {
  return {
    input,
    questions: questions.map(({ type, instructions, options }) => ({
      type,
      instructions,
      ...QUESTIONS[type](optionsOf(options)),
    })),
    ...(debias !== "none" && { debias }),
    ...(calibration && { calibration }),
  };
}

/** One question's answer: a bar for each option. */
function card(question, answer) {
  const shares =
    answer.type === "predicate"
      ? [{ value: "yes", ...answer }]
      : answer.probabilities.map((one) => ({ ...one, value: `${one.label ?? one.value}` }));
  const rows = shares.map((one, place) => row(one, answer.orders?.ranges[place], answer));
  return h(
    "article",
    { class: "card stack decision" },
    h("h2", {}, question.instructions),
    h("p", { class: "decided" }, ...decided(answer)),
    h("ol", { class: "decide-list" }, ...rows),
    answer.orders ? h("p", { class: "orders" }, inWords(answer)) : null,
    answer.set ? h("p", { class: "set" }, setInWords(answer)) : null,
  );
}

function row({ value, probability, calibrated_probability: calibrated }, range, { choice }) {
  const ranged = range && `, from ${percent(range.lowest)} to ${percent(range.highest)} by order`;
  const label = `${value}: ${percent(probability)}${ranged ?? ""}`;
  return h(
    "li",
    { class: `decide-row${value === `${choice}` ? " is-chosen" : ""}` },
    h("span", { class: "option" }, value),
    bar({ value: probability, low: range?.lowest, high: range?.highest, max: 1, label }),
    h("span", { class: "number share" }, percent(probability)),
    h(
      "span",
      { class: "number calibrated" },
      calibrated === undefined ? "" : `calibrated ${percent(calibrated)}`,
    ),
  );
}

function decided(answer) {
  const strong = (text) => h("strong", {}, text);
  if (answer.type === "predicate") return ["True with ", strong(percent(answer.probability))];
  const sure = `, confidence ${answer.confidence.toFixed(2)}`;
  if (answer.type === "choice") return [strong(`${answer.choice}`), sure];
  return ["Level ", strong(answer.score.toFixed(2)), ", counted from 0, on average", sure];
}

/** What the order of the options did. */
function inWords({ orders, type }) {
  const count = plural(orders.count, "order");
  if (orders.count === 1) return "There is only one order.";
  const asked = `Asked in ${count}; the bars are the average, the whiskers reach from the lowest to the highest.`;
  if (!orders.flipped) return `${asked} The same answer in every order.`;
  const what = type === "predicate" ? "yes and no trade places" : "options trade places";
  return `${asked} The answer flips when ${what}: asked in one order alone, it would depend on that order.`;
}

function setInWords({ set, abstain }) {
  const members = set.map((one) => `${one}`).join(", ") || "none";
  const may = `May be right, by this calibration: ${members}.`;
  return abstain ? `${may} It abstains: that is not a single answer.` : may;
}

export const view = {
  id: "decide",
  title: "Decide",
  path: PATH,
  initial: {
    input: "The package came two weeks late and the box was torn.",
    questions: [
      { type: "predicate", instructions: "The delivery was late.", options: "" },
      {
        type: "choice",
        instructions: "Which team should take this?",
        options: "shipping\nbilling\nsupport",
      },
      {
        type: "score",
        instructions: "How angry is the customer?",
        options: "calm\nannoyed\nfurious",
      },
    ],
    debias: "cyclic",
    calibration: "",
  },
  mount: (root, page) => {
    const shown = new DecideView(root, page);
    return { show: (state) => shown.show(state), leave: () => shown.leave() };
  },
};
