/** All candidates, best first, with their scores as bars. */

import { bar } from "../bars.js";
import { h } from "../dom.js";
import { error as errorText, nats, percent } from "../format.js";
import { quoted } from "../token_text.js";
import { VirtualList } from "../virtual_list.js";
import { candidateName } from "./score_names.js";

const ROW_PX = 36;

/** The list of ranked candidates; each row opens and closes that candidate's tokens. */
export class Ranking {
  /** @param {{onToggle: (index: number) => boolean}} options says whether it is open afterwards */
  constructor({ onToggle }) {
    this.onToggle = onToggle;
    this.list = new VirtualList({
      rowHeight: ROW_PX,
      render: (row) => this.rowOf(row),
      label: "candidates, best first",
      maxHeight: 10 * ROW_PX,
    });
    this.list.element.addEventListener("keydown", (event) => this.pressed(event));
    const head = ["rank", "candidate", "score", "", "share"].map((name) => h("span", {}, name));
    this.element = h(
      "div",
      { class: "ranking" },
      h("div", { class: "ranking-row ranking-head", "aria-hidden": "true" }, ...head),
      this.list.element,
    );
  }

  /** Show an answer's ranked results. */
  show({ ranked, names, open, marginal }) {
    Object.assign(this, { names, open, marginal });
    const ends = ranked.flatMap((one) => spanOf(one));
    const isCost = ranked.every((one) => one.score <= 0);
    this.isCost = isCost;
    this.scale = isCost
      ? { max: -Math.min(...finite(ends), 0) }
      : { min: Math.min(0, ...finite(ends)), max: Math.max(0, ...finite(ends)) };
    const first = new Map();
    for (const { tie_group: group, rank } of ranked) {
      if (group !== undefined && !first.has(group)) first.set(group, rank);
    }
    this.list.show(ranked.map((one) => ({ one, rank: rankText(one, first) })));
  }

  rowOf({ one, rank }) {
    const { index, score, numeric_error: error, probability } = one;
    const sign = this.isCost ? -1 : 1;
    const [low, high] = spanOf(one);
    const known = error === undefined ? "" : ` ${errorText(error)}`;
    const toggle = h(
      "button",
      {
        type: "button",
        class: "open-tokens",
        "aria-expanded": `${this.open.has(index)}`,
        "aria-label": `rank ${rank}: ${quoted(this.names.texts[index])}, ${nats(score)} nats${known}: tokens`,
        on: { click: () => toggle.setAttribute("aria-expanded", `${this.onToggle(index)}`) },
      },
      h("span", { class: "number" }, rank),
    );
    return h(
      "div",
      { class: `ranking-row${rank.startsWith("=") ? " tied" : ""}`, "data-index": index },
      toggle,
      candidateName(this.names, index),
      bar({
        value: sign * score,
        ...(error !== undefined && {
          low: Math.min(sign * low, sign * high),
          high: Math.max(sign * low, sign * high),
        }),
        ...this.scale,
        color: this.names.color(index),
        label: `score ${nats(score)} nats${known}`,
      }),
      h("span", { class: "number score", title: `${score}${known}` }, nats(score)),
      h("span", { class: "number share", title: `${probability}` }, shareText(one)),
    );
  }

  pressed(event) {
    const at = this.list.indexOf(event.target);
    const last = this.list.items.length - 1;
    const moves = {
      ArrowDown: at + 1,
      ArrowUp: at - 1,
      PageDown: at + 9,
      PageUp: at - 9,
      Home: 0,
      End: last,
    };
    const next = moves[event.key];
    if (at < 0 || next === undefined) return;
    event.preventDefault();
    this.list.focusRow(Math.max(0, Math.min(last, next)), "button");
  }
}

/** Where a score may lie: within its numeric error, or between the bounds of `marginal`. */
function spanOf({ score, numeric_error: error = 0, marginal }) {
  return [score - error, Math.max(score, marginal?.upper ?? score) + error];
}

const finite = (values) => values.filter(Number.isFinite);

/** Candidates that cannot be told apart share the rank of the first of them. */
function rankText({ rank, tie_group: group }, first) {
  return group === undefined ? `${rank}` : `=${first.get(group)}`;
}

function shareText({ probability, probability_bounds: bounds }) {
  if (probability !== undefined) return percent(probability);
  return bounds ? `${percent(bounds[0])} to ${percent(bounds[1])}` : "–";
}
