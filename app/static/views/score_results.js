/** What an answer says: the explanation, the ranking, and the tokens of what is open. */

import { h } from "../dom.js";
import { boundaryFigure, offMass } from "./score_boundary.js";
import { CandidateNames } from "./score_names.js";
import {
  explanation,
  kindsOf,
  leaders,
  normalizationColumns,
  standings,
} from "./score_normalizations.js";
import { CumulativePlot } from "./score_plot.js";
import { Ranking } from "./score_ranking.js";
import { resultsOf } from "./score_request.js";
import { TokenCards } from "./score_tokens.js";

const LEADERS = 6;

const RANKING_HELP =
  "Best first by the chosen normalization; the whisker is what a score may be off by, and = joins " +
  "candidates that cannot be told apart. The button with the rank opens and closes the tokens.";
const COLUMNS_HELP =
  "The same log-probs, divided in different ways. In the sum each block is a token.";
const COMPACT_HELP =
  "The answer for so many candidates comes in columns, which have the sum and the chosen score alone.";
const PLOT_HELP =
  "Log-prob added up by token: a line ends where its text ends, and that is its sum, drawn on as " +
  "a dashed line to compare with.";
const TOKENS_HELP =
  "Each with its number. Point at one, or reach it with Tab and the arrow keys, for its log-prob, " +
  "rank, entropy and alternatives; Escape hides them.";

/** The right half of the view. */
export class ScoreResults {
  /** @param {{onToggle: (index: number) => boolean, onMeasure: (measure: string) => void}} options */
  constructor({ onToggle, onMeasure }) {
    this.stale = h(
      "p",
      { class: "warning stale", hidden: true },
      "These numbers are of the request before: the one now in the form could not be answered.",
    );
    this.warnings = h("ul", { class: "warning", hidden: true });
    this.explained = h("div", { class: "explanation", "aria-live": "polite" });
    this.columns = h("div", {});
    this.ranking = new Ranking({ onToggle });
    this.mass = h("div", {});
    this.meeting = h("div", {});
    this.cards = new TokenCards({ onMeasure });
    this.plot = new CumulativePlot();
    const part = (title, help, ...content) =>
      h(
        "section",
        { class: "result-part" },
        h("h2", {}, title),
        help ? h("p", { class: "help" }, help) : null,
        ...content,
      );
    const ranking = part("Ranking", RANKING_HELP, this.ranking.element, this.mass);
    this.rankedBy = ranking.querySelector("h2");
    this.plotted = part("Token by token", PLOT_HELP, this.plot.element);
    this.element = h(
      "div",
      { class: "score-results", hidden: true },
      this.stale,
      this.warnings,
      part("Who wins", "", this.explained),
      ranking,
      part("Normalizations side by side", COLUMNS_HELP, this.columns),
      this.plotted,
      part("Tokens", TOKENS_HELP, this.cards.element),
      part("Where context and candidate meet", "", this.meeting),
    );
  }

  /** Show an answer. @returns {{ranked: object[], failed: object[], open: number[]}} */
  show(state, answer) {
    const { ranked, failed } = resultsOf(answer);
    this.state = state;
    this.ranked = ranked;
    this.isCompact = Boolean(answer.compact);
    this.kinds = kindsOf(state, ranked);
    this.places = this.kinds.map((kind) => standings(ranked, kind, answer, state.normalization));
    const chosen = this.kinds.find((kind) => kind.id === state.normalization);
    this.rankedBy.textContent = chosen ? `Ranking by ${chosen.by}` : "Ranking";
    this.element.hidden = false;
    this.stale.hidden = true;
    this.element.classList.toggle("empty", ranked.length === 0);
    this.leaders = ranked.length ? leaders(ranked, this.places, LEADERS) : [];
    this.names = new CandidateNames(
      state.candidates,
      [...this.leaders].sort((one, other) => one - other),
    );
    this.mass.replaceChildren(offMass(answer));
    this.meeting.replaceChildren(
      boundaryFigure({
        context: state.context,
        boundary: answer.boundary,
        names: this.names,
        ranked,
      }),
    );
    return { ranked, failed, leaders: this.leaders };
  }

  /** Show the ranking anew, with what is open. */
  showRanking(open) {
    this.ranking.show({ ranked: this.ranked, names: this.names, open });
  }

  /** Show what the tokens say: costs within the sums, lines, cards. */
  async showTokens({ open, tokens, measure, note }) {
    const { kinds, places, names, leaders: shown, state } = this;
    if (!this.ranked.length) return;
    this.explained.replaceChildren(explanation({ kinds, places, names }));
    const columns = normalizationColumns({ kinds, places, shown, names, tokens });
    this.columns.replaceChildren(
      columns,
      ...(this.isCompact ? [h("p", { class: "help" }, COMPACT_HELP)] : []),
    );
    const results = this.ranked.filter((one) => open.has(one.index));
    this.cards.show({ results, tokens, measure, names, context: state.context, note });
    this.plotted.hidden = !results.some((one) => tokens.has(one.index));
    const indices = results.map((one) => one.index).sort((one, other) => one - other);
    await this.plot.show({ indices, tokens, names, pair: this.pair() });
  }

  /** The sum's winner and the first winner that is another, or the sum's second. */
  pair() {
    const first = this.places[0]?.[0]?.one.index;
    const other = this.places.map((rows) => rows[0].one.index).find((index) => index !== first);
    return [first, other ?? this.places[0]?.[1]?.one.index];
  }

  /** Say what is odd about the request as a whole. */
  showWarnings(texts) {
    this.warnings.hidden = texts.length === 0;
    this.warnings.replaceChildren(...texts.map((text) => h("li", {}, text)));
  }

  /** Say that the numbers are those of a request before. */
  markStale() {
    this.stale.hidden = false;
  }
}
