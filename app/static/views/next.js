/** The view Next: which token comes after a context, and what temperature and top-p make of it. */

import { bar } from "../bars.js";
import { h } from "../dom.js";
import { count, nats, percent, plural } from "../format.js";
import { clearErrors, showError } from "../form.js";
import { Latest } from "../latest.js";
import { visibleText } from "../token_text.js";
import { NextForm } from "./next_form.js";

const PATH = "/v1/next_token";
const NATS_OF_A_BIT = Math.LN2;
/** What stands for bytes that are no whole character. */
const REPLACEMENT = "\ufffd";

class NextView {
  constructor(root, page) {
    this.page = page;
    this.latest = new Latest();
    this.form = new NextForm({ onChange: (patch) => this.changed(patch), onUndo: () => this.undo() });
    this.results = h("div", { class: "next-results stack" });
    root.append(h("div", { class: "columns" }, this.form.element, this.results));
  }

  show(state) {
    this.state = { ...state };
    this.form.fill(this.state);
    this.run();
  }

  changed(patch) {
    Object.assign(this.state, patch);
    this.page.change(patch);
    this.run();
  }

  /** Go on with a token. */
  walk({ text }) {
    const context = this.state.context + text;
    this.changed({ context, appended: [...this.state.appended, text] });
    this.form.fill(this.state);
    this.page.say(`${JSON.stringify(text)} is now the end of the context.`);
  }

  undo() {
    const appended = [...this.state.appended];
    const last = appended.pop();
    if (last === undefined || !this.state.context.endsWith(last)) return;
    this.changed({ context: this.state.context.slice(0, -last.length), appended });
    this.form.fill(this.state);
  }

  /** All tokens at the temperature first, then those that top-p keeps of them. */
  run() {
    const body = bodyOf(this.state);
    const isCut = Number(this.state.top_p) < 1;
    const cut = { ...body, top_p: Number(this.state.top_p) };
    this.page.sent(PATH, isCut ? cut : body);
    this.latest.run(
      async (signal) => {
        const whole = await this.page.api.post(PATH, body, { signal });
        const kept = isCut ? await this.page.api.post(PATH, cut, { signal }) : whole;
        return { whole, kept };
      },
      ({ whole, kept }) => this.answered(whole, kept),
      (error) => {
        this.results.classList.add("stale");
        showError(this.form.element, error);
      },
    );
  }

  answered(whole, kept) {
    clearErrors(this.form.element);
    this.results.classList.remove("stale");
    const focused = this.results.querySelector(":focus")?.dataset.id;
    const isTempered = Number(this.state.temperature) !== 1;
    const keptIds = new Set(kept.tokens.map((token) => token.id));
    const isKept = ({ id }) => kept === whole || keptIds.has(id);
    const rows = (tokens) => tokens.map((token) => this.row(token, isKept(token), isTempered));
    this.results.replaceChildren(
      summary(whole, kept, isTempered, this.state),
      list("Most probable tokens", isTempered, rows(whole.tokens)),
      rest(whole, isTempered),
      ...(whole.chosen?.length
        ? [h("h2", {}, "Labels"), list("Labels", isTempered, rows(whole.chosen))]
        : []),
    );
    if (focused) this.results.querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus();
    this.page.say(
      `${plural(whole.tokens.length, "token")} in ${Math.round(whole.timings_ms.total)} ms`,
    );
  }

  row(token, isKept, isTempered) {
    const own = Math.exp(token.logprob ?? -Infinity);
    const cut = isKept ? "" : ", cut off by top-p";
    const spoken =
      `${JSON.stringify(token.text)}, rank ${token.rank}, ${percent(own)}` +
      (isTempered ? `, ${percent(token.probability)} at this temperature` : "") +
      cut;
    const isWhole = !token.text.includes(REPLACEMENT) && token.text !== "";
    return h(
      "li",
      { class: `next-row${isKept ? "" : " is-cut"}` },
      h("span", { class: "number rank" }, `#${count(token.rank)}`),
      h(
        "button",
        {
          type: "button",
          class: "token-button",
          disabled: !isWhole,
          dataset: { id: token.id },
          "aria-label": `Append ${spoken}`,
          on: { click: () => this.walk(token) },
        },
        ...visibleText(token.text),
      ),
      h(
        "div",
        { class: "next-bars" },
        bar({ value: own, max: 1, label: spoken }),
        isTempered
          ? bar({ value: token.probability, max: 1, label: "", color: "tempered" })
          : null,
      ),
      h("span", { class: "number own" }, percent(own)),
      h("span", { class: "number at-temperature" }, isTempered ? percent(token.probability) : ""),
      h("span", { class: "number logprob" }, nats(token.logprob ?? -Infinity)),
    );
  }
}

function bodyOf({ context, top_k: topK, temperature, labels }) {
  const named = labels.split("\n").filter((label) => label !== "");
  return {
    context,
    top_k: Number(topK),
    ...(Number(temperature) !== 1 && { temperature: Number(temperature) }),
    ...(named.length && { labels: named }),
  };
}

function summary(whole, kept, isTempered, { top_p: topP, temperature }) {
  const bits = whole.entropy / NATS_OF_A_BIT;
  const isCut = Number(topP) < 1;
  const reached = kept.tokens.length < whole.tokens.length || kept.remaining_probability === 0;
  return h(
    "div",
    { class: "card stack" },
    h(
      "p",
      {},
      "Entropy ",
      h("strong", { class: "number entropy" }, nats(whole.entropy)),
      ` nats (${nats(bits, 2)} bits): as open as a choice between `,
      h("strong", { class: "number" }, Math.exp(whole.entropy).toFixed(1)),
      " equally probable tokens.",
    ),
    isTempered
      ? h(
          "p",
          { class: "help" },
          `Log-probabilities, ranks and the entropy are the model's own; temperature ${temperature} ` +
            "changes the second bars alone.",
        )
      : null,
    isCut
      ? h(
          "p",
          { class: "top-p-note" },
          reached
            ? `Top-p ${topP} keeps ${plural(kept.tokens.length, "token")}.`
            : `Top-p ${topP} keeps more tokens than are shown.`,
        )
      : null,
  );
}

function list(label, isTempered, rows) {
  return h(
    "div",
    {},
    h(
      "div",
      { class: "next-row next-head", "aria-hidden": "true" },
      ...["rank", "token", "", "model", isTempered ? "tempered" : "", "log-prob"].map((text) =>
        h("span", {}, text),
      ),
    ),
    h("ol", { class: "next-list", "aria-label": label }, ...rows),
  );
}

function rest({ remaining_probability: mass }, isTempered) {
  const when = isTempered ? " at this temperature" : "";
  return h(
    "p",
    { class: "rest" },
    "Everything else: ",
    h("strong", { class: "number remaining" }, percent(mass)),
    `${when}.`,
  );
}

export const view = {
  id: "next",
  title: "Next",
  path: PATH,
  initial: {
    context: "The capital of France is",
    labels: "",
    top_k: "10",
    temperature: "1",
    top_p: "1",
    appended: [],
  },
  mount: (root, page) => {
    const shown = new NextView(root, page);
    return { show: (state) => shown.show(state), leave: () => undefined };
  },
};
