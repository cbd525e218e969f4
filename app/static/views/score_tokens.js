/** The tokens of the candidates that are open, coloured by what is chosen. */

import { h } from "../dom.js";
import { nats, plural } from "../format.js";
import { MEASURES, quoted, tokenLegend, tokenText } from "../token_text.js";
import { closeTip } from "../token_tip.js";
import { bytesOf } from "./score_boundary.js";
import { candidateName } from "./score_names.js";

/** A card for each open candidate, under one choice of the measure and its legend. */
export class TokenCards {
  /** @param {{onMeasure: (measure: string) => void}} options */
  constructor({ onMeasure }) {
    this.choice = h("div", {
      class: "measures",
      role: "radiogroup",
      "aria-label": "colour the tokens by",
    });
    for (const [id, { title }] of Object.entries(MEASURES)) {
      const input = h("input", {
        type: "radio",
        name: "score-measure",
        value: id,
        on: { change: () => onMeasure(id) },
      });
      this.choice.append(h("label", {}, input, ` ${title}`));
    }
    this.legend = h("div", {});
    this.note = h("p", { class: "help" });
    this.cards = h("div", { class: "token-cards" });
    this.element = h("div", {}, this.choice, this.legend, this.note, this.cards);
  }

  /**
   * @param {object} shown
   * @param {object[]} shown.results those of the open candidates
   * @param {Map<number, object[]>} shown.tokens by index; those that are still asked for are absent
   * @param {string} shown.note why something is not there
   */
  show({ results, tokens, measure, names, context, note = "" }) {
    closeTip();
    const focused = this.focused();
    const contextBytes = bytesOf(context).length;
    this.choice
      .querySelectorAll("input")
      .forEach((input) => (input.checked = input.value === measure));
    this.legend.replaceChildren(tokenLegend(measure));
    this.note.textContent = note;
    this.cards.replaceChildren(
      ...results.map((one) =>
        this.card(one, tokens.get(one.index), { measure, names, contextBytes }),
      ),
    );
    this.refocus(focused);
  }

  card(one, tokens, { measure, names, contextBytes }) {
    const label = `tokens of ${quoted(names.texts[one.index])}`;
    return h(
      "article",
      { class: "token-card", "data-index": one.index },
      h("header", {}, candidateName(names, one.index), " ", ...facts(one, names)),
      tokens
        ? tokenText(tokens, { measure, label, contextBytes })
        : h(
            "p",
            { class: "help" },
            one.marginal ? marginalWords(one.marginal) : "asking for its tokens…",
          ),
    );
  }

  /** The token that has the focus, as a place that outlives a new drawing. */
  focused() {
    const token = document.activeElement?.closest?.(".token");
    const card = token?.closest(".token-card");
    if (!card || !this.cards.contains(card)) return undefined;
    return {
      index: card.dataset.index,
      place: [...card.querySelectorAll(".token")].indexOf(token),
    };
  }

  refocus(focused) {
    const card = focused && this.cards.querySelector(`[data-index="${focused.index}"]`);
    card?.querySelectorAll(".token")[focused.place]?.focus({ preventScroll: true });
  }
}

function facts(one, names) {
  const numbers = [
    one.token_count !== undefined && `${plural(one.token_count, "token")}`,
    one.logprob !== undefined && `sum ${nats(one.logprob)}`,
    one.mean_logprob !== undefined && `mean ${nats(one.mean_logprob)}`,
    one.logprob_per_byte !== undefined && `per byte ${nats(one.logprob_per_byte)}`,
    one.baseline_logprob !== undefined && `baseline ${nats(one.baseline_logprob)}`,
    one.tail_tokens && `${plural(one.tail_tokens, "token")} of them in the context`,
    one.greedy && "greedy: each token is the most probable one at its place",
  ].filter(Boolean);
  const shown = [h("span", { class: "help number" }, numbers.join(" · "))];
  if (!one.prefix_of) return shown;
  const others = one.prefix_of
    .slice(0, 3)
    .flatMap((index, at) => [at ? ", " : "", candidateName(names, index)]);
  const more = one.prefix_of.length > 3 ? ` and ${one.prefix_of.length - 3} more` : "";
  return [
    ...shown,
    h(
      "p",
      { class: "help prefix-of" },
      "Its tokens begin those of ",
      ...others,
      `${more}: it never loses to them on the sum, unless the end is scored too.`,
    ),
  ];
}

function marginalWords({ lower, upper, exact, expanded, normalized }) {
  const where = exact
    ? `exact: ${nats(lower)} nats`
    : `between ${nats(lower)} and ${nats(upper)} nats: the budget of token paths did not suffice`;
  const text =
    normalized === undefined ? "" : ` The tokenizer writes the candidate as ${quoted(normalized)}.`;
  return `Summed over every way to spell it, so it has no one list of tokens; ${expanded} paths were asked about; ${where}.${text}`;
}
