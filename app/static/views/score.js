/** The view Score: candidates given a context, why one of them wins, and by which measure. */

import { h } from "../dom.js";
import { count, plural } from "../format.js";
import { clearErrors } from "../form.js";
import { Latest } from "../latest.js";
import { MEASURES, quoted } from "../token_text.js";
import { ScoreForm } from "./score_form.js";
import { notesOf } from "./score_notes.js";
import { entropiesBody, MAX_OPEN, scoreBody, tokensBody } from "./score_request.js";

const PATH = "/v1/score";
const TYPING_MS = 400;
const SLOW_MS = 500;
const OPEN_OF_MANY = 3;

/** What is open where nobody has opened or closed any: all of few, the winners of many. */
const AUTO = "auto";

class ScoreView {
  constructor(root, page) {
    this.page = page;
    this.latest = new Latest();
    this.turn = 0;
    const say = (text) => page.say(text);
    this.form = new ScoreForm({ onChange: () => this.changed(), onSubmit: () => this.run(), say });
    this.element = h("div", { class: "score-view" }, this.form.element);
    root.append(this.element);
    this.prepared = this.prepare();
  }

  /** What shows an answer is fetched behind the form, which can be typed into meanwhile. */
  async prepare() {
    const { ScoreResults } = await import("./score_results.js");
    this.results = new ScoreResults({
      onToggle: (index) => this.toggle(index),
      onMeasure: (measure) => this.measure(measure),
    });
    this.element.append(this.results.element);
  }

  show(state) {
    this.state = {
      ...state,
      candidates: state.candidates.map((text) => `${text}`),
      measure: state.measure in MEASURES ? state.measure : "logprob",
    };
    this.form.fill(this.state);
    this.run();
  }

  leave() {
    clearTimeout(this.typing);
    clearTimeout(this.slow);
    this.turn += 1;
  }

  /** The form was changed: keep it in the link now, and ask when the typing pauses. */
  changed() {
    this.keep({ ...this.form.read(), opened: AUTO });
    this.turn += 1;
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.run(), TYPING_MS);
  }

  keep(patch) {
    Object.assign(this.state, patch);
    this.page.change(patch);
  }

  run() {
    clearTimeout(this.typing);
    const turn = ++this.turn;
    const state = { ...this.state };
    const body = scoreBody(state);
    this.page.sent(PATH, body);
    clearTimeout(this.slow);
    this.slow = setTimeout(() => this.page.say("Scoring…"), SLOW_MS);
    if (this.asksMore) this.latest.cancel();
    this.asksMore = false;
    this.latest.run(
      (signal) => this.ask(body, signal),
      (answer) => turn === this.turn && this.answered(state, answer),
      (error) => turn === this.turn && this.failed(error),
    );
  }

  /** The answer, or the error, once there is something to show it with. */
  async ask(body, signal) {
    const [asked] = await Promise.allSettled([
      this.page.api.post(PATH, body, { signal }),
      this.prepared,
    ]);
    if (asked.status === "rejected") throw asked.reason;
    return asked.value;
  }

  answered(state, answer) {
    clearTimeout(this.slow);
    clearErrors(this.form.element);
    this.answer = answer;
    this.asked = state;
    this.tokens = new Map();
    this.askedEntropies = new Set();
    this.note = "";
    const { ranked, failed, leaders } = this.results.show(state, answer);
    for (const one of ranked) if (one.tokens) this.tokens.set(one.index, one.tokens);
    const known = new Set(ranked.map((one) => one.index));
    const all = known.size <= MAX_OPEN ? [...known] : leaders.slice(0, OPEN_OF_MANY);
    const opened =
      state.opened === AUTO ? all : state.opened.split(",").filter(Boolean).map(Number);
    this.open = new Set(opened.filter((index) => known.has(index)).slice(0, MAX_OPEN));
    this.tell(notesOf(failed, answer.warnings));
    this.results.showRanking(this.open);
    this.page.say(summary(ranked.length, failed.length, answer));
    this.draw();
    this.more();
  }

  failed(error) {
    clearTimeout(this.slow);
    this.page.say("");
    clearErrors(this.form.element);
    this.results.markStale();
    const { notes } = notesOf([], [{ ...error, message: error.message }], "error");
    this.tell({ notes, others: [] });
    if (notes.size) this.form.candidates.focus([...notes.keys()][0]);
    else this.form.showError(error);
  }

  /** What is said at single candidates, and what is said of all. */
  tell({ notes, others }) {
    this.form.candidates.setNotes(notes);
    this.results.showWarnings(others);
  }

  draw() {
    const { open, tokens, note } = this;
    return this.results.showTokens({ open, tokens, measure: this.state.measure, note });
  }

  toggle(index) {
    if (!this.open.delete(index)) {
      if (this.open.size >= MAX_OPEN) {
        this.page.say(`No more than ${MAX_OPEN} candidates can be open: close one first`);
        return false;
      }
      this.open.add(index);
    }
    const name = quoted(this.state.candidates[index]);
    this.page.say(this.open.has(index) ? `The tokens of ${name} are below, under Tokens` : "");
    this.keep({ opened: [...this.open].join(",") });
    this.draw();
    this.more();
    return this.open.has(index);
  }

  measure(measure) {
    this.keep({ measure });
    this.draw();
  }

  /** Ask for what is not there yet of the open candidates: tokens first, then their entropies. */
  more() {
    if (this.answer.boundary.policy === "marginal") return;
    const open = [...this.open];
    const untold = open.filter((index) => !this.tokens.has(index));
    const unasked = open.filter((index) => !this.askedEntropies.has(index));
    if (untold.length) this.askMore(PATH, tokensBody, untold, ({ results }) => results);
    else if (unasked.length) {
      unasked.forEach((index) => this.askedEntropies.add(index));
      this.askMore("/v1/audit", entropiesBody, unasked, ({ candidates }) => candidates);
    }
  }

  askMore(path, bodyOf, indices, partsOf) {
    const turn = this.turn;
    const body = bodyOf(this.asked, this.answer, indices);
    this.asksMore = true;
    this.latest.run(
      (signal) => this.page.api.post(path, body, { signal }),
      (answer) => {
        if (turn !== this.turn) return;
        this.asksMore = false;
        partsOf(answer).forEach((part, place) => this.learn(indices[place], part.tokens ?? []));
        this.draw();
        this.more();
      },
      (error) => {
        if (turn !== this.turn) return;
        this.asksMore = false;
        this.note = `${path === PATH ? "Tokens" : "Entropies"} are not shown: ${error.message}`;
        indices.forEach((index) => this.tokens.has(index) || this.open.delete(index));
        this.results.showRanking(this.open);
        this.draw();
      },
    );
  }

  /** Add what an answer says of a candidate's tokens to what is known of them. */
  learn(index, tokens) {
    const known = this.tokens.get(index);
    this.tokens.set(
      index,
      known ? known.map((token, place) => ({ ...tokens[place], ...token })) : tokens,
    );
  }
}

function summary(ranked, failed, { timings_ms: timings, usage }) {
  const bad = failed ? `, ${count(failed)} could not be` : "";
  return (
    `${count(ranked)} scored${bad}: ${plural(usage.scored_tokens, "token")} in ` +
    ` ${Math.round(timings.total)} ms`
  );
}

export const view = {
  id: "score",
  title: "Score",
  path: PATH,
  initial: {
    context: "The official name of Britain is",
    candidates: [
      " England",
      " Britain",
      " the United Kingdom of Great Britain and Northern Ireland",
    ],
    normalization: "sum",
    gnmt_alpha: "",
    pmi_context: "",
    calibration_contexts: "N/A",
    boundary: "",
    max_expansions: "",
    append_eos: false,
    add_bos: "",
    temperature: "1",
    measure: "logprob",
    opened: AUTO,
  },
  mount: (root, page) => {
    const shown = new ScoreView(root, page);
    return { show: (state) => shown.show(state), leave: () => shown.leave() };
  },
};
