/** The view Decode: what greedy, beam and exact search find, and what the first two miss. */

import { h } from "../dom.js";
import { nats, plural, times } from "../format.js";
import { clearErrors, showError } from "../form.js";
import { Latest } from "../latest.js";
import { tokenLegend, tokenText, visibleText } from "../token_text.js";
import { DecodeForm } from "./decode_form.js";
import { searchTree } from "./decode_tree.js";

const PATH = "/v1/decode";
const TYPING_MS = 500;
const STRATEGIES = ["greedy", "beam", "exact"];
const ALTERNATIVES = 5;
/** Alternatives that an answer may list, of all its tokens together. */
const MAX_LISTED = 16_384;
const CLASSES = { greedy: "series-1", beam: "series-2", exact: "series-3" };

class DecodeView {
  constructor(root, page) {
    this.page = page;
    this.latest = new Latest();
    this.form = new DecodeForm({
      onChange: (patch) => this.changed(patch),
      onStream: () => this.stream(),
      onStop: () => this.streaming?.abort(),
    });
    this.streamed = h("section", { class: "card stack streamed", "aria-label": "Streamed", hidden: true });
    this.results = h("div", { class: "stack" });
    root.append(
      h("div", { class: "columns" }, this.form.element, h("div", { class: "stack" }, this.streamed, this.results)),
    );
  }

  show(state) {
    this.state = { ...state };
    this.form.fill(this.state);
    this.run();
  }

  leave() {
    clearTimeout(this.typing);
    this.streaming?.abort();
  }

  changed(patch) {
    Object.assign(this.state, patch);
    this.page.change(patch);
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.run(), TYPING_MS);
  }

  run() {
    const body = comparison(this.state);
    this.page.sent(PATH, body);
    this.results.classList.add("stale");
    this.latest.run(
      (signal) => this.page.api.post(PATH, body, { signal }),
      (answer) => this.answered(answer),
      (error) => showError(this.form.element, error),
    );
  }

  answered(answer) {
    clearErrors(this.form.element);
    this.results.classList.remove("stale");
    this.results.replaceChildren(
      h("div", { class: "card stack" }, h("h2", {}, "What the search cost"), ...verdict(answer)),
      ...answer.compared.map((one) => found(one)),
      tokenLegend("logprob"),
      ...answer.compared.filter((one) => one.search_tree).map((one) => treeCard(one)),
    );
    this.page.say(
      `Three searches in ${Math.round(answer.timings_ms.total)} ms, ` +
        `${plural(answer.usage.computed_tokens, "token")} computed`,
    );
  }

  /** Greedy search, token by token as it goes on. */
  async stream() {
    this.streaming?.abort();
    const running = (this.streaming = new AbortController());
    const { signal } = running;
    const body = streamed(this.state);
    this.page.sent(PATH, body);
    const tokens = [];
    this.form.showStreaming(true);
    this.streamed.hidden = false;
    try {
      for await (const { event, data } of this.page.api.stream(PATH, body, { signal })) {
        if (event === "token") tokens.push(data);
        if (event === "error") throw Object.assign(new Error(data.error.message), data.error);
        this.showStreamed(tokens, event === "result" ? "Finished" : "Streaming");
      }
    } catch (error) {
      if (signal.aborted) this.showStreamed(tokens, "Stopped");
      else showError(this.form.element, error);
    } finally {
      if (this.streaming === running) this.form.showStreaming(false);
    }
  }

  showStreamed(tokens, state) {
    this.streamed.replaceChildren(
      h("h2", {}, "Greedy, as it comes"),
      tokenText(tokens, { label: "Streamed tokens" }),
      h("p", { class: "help stream-state" }, `${state}: ${plural(tokens.length, "token")}.`),
    );
  }
}

function common({ context, max_tokens: maxTokens, stop }) {
  const stops = stop.split("\n").filter((line) => line !== "");
  return {
    context,
    max_tokens: Number(maxTokens),
    ...(stops.length && { stop: stops.map((one) => one.replaceAll("\\n", "\n")) }),
  };
}

function comparison(state) {
  const listed = Math.floor(MAX_LISTED / (STRATEGIES.length * Math.max(1, Number(state.max_tokens))));
  return {
    ...common(state),
    compare: STRATEGIES,
    num_beams: Number(state.num_beams),
    max_expansions: Number(state.max_expansions),
    token_logprobs: true,
    top_logprobs: Math.min(ALTERNATIVES, listed),
    search_tree: true,
    timeout_ms: Math.round(Number(state.seconds) * 1000),
  };
}

const streamed = (state) => ({ ...common(state), stream: true, top_logprobs: ALTERNATIVES });

/** The best there is, and how sure that is, in words. */
function verdict({ certificate, compared }) {
  const exact = compared.find((one) => one.strategy === "exact");
  if (!certificate) {
    return [h("p", {}, `Exact search had no time to look at anything: ${exact.reason}. Give it more seconds.`)];
  }
  const looked = `It asked the model what follows ${plural(certificate.expanded, "prefix").replace("prefixs", "prefixes")}.`;
  if (!exact.sequence) {
    return [h("p", {}, `Exact search found nothing within its budget. ${looked}`)];
  }
  const proof = certificate.optimal
    ? "Proven: no completion is more probable than the one that exact search found."
    : `Not proven: a completion may exist that is up to ${nats(certificate.gap)} nats better ` +
      `(the bound is ${nats(certificate.upper_bound)}). More expansions or time may close the gap.`;
  const missed = compared
    .filter((one) => one.search_error > 0)
    .map(
      ({ strategy, search_error: error }) =>
        `${strategy} missed ${nats(error)} nats: the best text is ${times(error)} times as probable.`,
    );
  const hit = compared
    .filter((one) => one.search_error === 0 && one.strategy !== "exact")
    .map(({ strategy }) => `${strategy} found the best.`);
  return [
    h("p", { class: "certificate" }, `${proof} ${looked}`),
    h("ul", {}, ...[...missed, ...hit].map((text) => h("li", {}, text))),
  ];
}

function found({ strategy, sequence, total, search_error: error, reason }) {
  const head = h("h2", {}, h("span", { class: `strategy ${CLASSES[strategy]}` }, strategy));
  if (!sequence) return h("article", { class: "card stack found" }, head, h("p", {}, reason ?? ""));
  return h(
    "article",
    { class: "card stack found" },
    head,
    h("p", { class: "found-text mono" }, ...visibleText(sequence.text)),
    tokenText(sequence.tokens, { label: `${strategy}'s tokens` }),
    h(
      "p",
      { class: "help number" },
      `log P ${nats(total)} nats, ${plural(sequence.token_ids.length, "token")}, ` +
        `${sequence.finish_reason === "stop" ? "ended" : "cut off by max_tokens"}, search error ` +
        (error === undefined ? `unknown: ${reason}` : `${nats(error)} nats`),
    ),
  );
}

function treeCard({ strategy, search_tree: tree }) {
  return h(
    "details",
    { class: "card", open: strategy === "exact" },
    h("summary", {}, `What ${strategy} search looked at`),
    searchTree(tree, strategy),
  );
}

export const view = {
  id: "decode",
  title: "Decode",
  path: PATH,
  initial: {
    context: "The capital of France is",
    max_tokens: "6",
    num_beams: "3",
    stop: "",
    max_expansions: "512",
    seconds: "20",
  },
  mount: (root, page) => {
    const shown = new DecodeView(root, page);
    return { show: (state) => shown.show(state), leave: () => shown.leave() };
  },
};
