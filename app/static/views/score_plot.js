/** Log-prob token by token, added up: where candidates part and which one leads where. */

import { h } from "../dom.js";
import { nats } from "../format.js";
import { linePlot } from "../line_plot.js";
import { quoted } from "../token_text.js";
import { candidateName, shortName } from "./score_names.js";

const MAX_LINES = 8;

/** The sums up to each token, from 0 before the first, added from left to right as the server does. */
export function cumulative(tokens) {
  const sums = [0];
  for (const { logprob } of tokens) sums.push(sums.at(-1) + logprob);
  return sums;
}

/** A plot with its numbers as a table. */
export class CumulativePlot {
  constructor() {
    this.canvas = h("div", { class: "plot", role: "img", "aria-label": "" });
    this.words = h("p", {});
    this.key = h("p", { class: "plot-key" });
    this.table = h("div", {
      class: "table-scroll",
      tabindex: "0",
      role: "region",
      "aria-label": "log-prob added up by token",
    });
    const details = h("details", {}, h("summary", {}, "The same as a table"), this.table);
    this.element = h("div", { class: "cumulative" }, this.words, this.key, this.canvas, details);
  }

  /**
   * @param {object} shown
   * @param {number[]} shown.indices candidates in the order of their lines
   * @param {Map<number, object[]>} shown.tokens by index
   * @param {[number, number] | undefined} shown.pair two candidates to be compared in words
   */
  async show({ indices, tokens, names, pair }) {
    const drawn = indices.filter((index) => tokens.has(index)).slice(0, MAX_LINES);
    if (!drawn.length) return;
    const sums = drawn.map((index) => cumulative(tokens.get(index)));
    this.words.replaceChildren(...pairWords(pair, tokens, names));
    this.key.replaceChildren(...drawn.flatMap((index) => [candidateName(names, index), " "]));
    this.table.replaceChildren(tableOf(drawn, sums, tokens, names));
    this.canvas.setAttribute(
      "aria-label",
      `Log-prob added up by token: ${drawn.map((index, at) => `${quoted(names.texts[index])} ends at ${nats(sums[at].at(-1))} after ${sums[at].length - 1}`).join("; ")}`,
    );
    const lines = drawn.map((index, at) => ({
      label: names.texts[index],
      values: sums[at],
      color: names.color(index),
    }));
    await linePlot(this.canvas, {
      series: [...lines, ...totals(lines)],
      xLabel: "scored tokens",
      yLabel: "log-prob so far, nats",
    });
  }
}

/** From where a line ends, its total as a dashed line to where the longest one ends. */
function totals(lines) {
  const steps = Math.max(...lines.map((line) => line.values.length));
  return lines
    .filter((line) => line.values.length < steps)
    .map(({ label, values, color }) => ({
      label,
      color,
      dashed: true,
      values: Array.from({ length: steps }, (_, step) =>
        step < values.length - 1 ? null : values.at(-1),
      ),
    }));
}

function tableOf(drawn, sums, tokens, names) {
  const steps = Math.max(...sums.map((one) => one.length)) - 1;
  const cell = (index, at, step) => {
    const token = tokens.get(index)[step];
    return token
      ? [
          h("td", {}, quoted(token.text)),
          h("td", { class: "number" }, nats(token.logprob)),
          h("td", { class: "number" }, nats(sums[at][step + 1])),
        ]
      : [h("td", {}, ""), h("td", {}, ""), h("td", {}, "")];
  };
  return h(
    "table",
    {},
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        h("th", { scope: "col", rowspan: "2" }, "token"),
        ...drawn.map((index) =>
          h("th", { scope: "colgroup", colspan: "3" }, candidateName(names, index)),
        ),
      ),
      h(
        "tr",
        {},
        ...drawn.flatMap(() =>
          ["text", "log-prob", "so far"].map((name) => h("th", { scope: "col" }, name)),
        ),
      ),
    ),
    h(
      "tbody",
      {},
      ...Array.from({ length: steps }, (_, step) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }, `${step + 1}`),
          ...drawn.flatMap((index, at) => cell(index, at, step)),
        ),
      ),
    ),
  );
}

/** Where two candidates part, and where the later winner takes the lead. */
function pairWords(pair, tokens, names) {
  const [better, worse] = pair ?? [];
  if (!tokens.has(better) || !tokens.has(worse)) return [];
  const lists = [tokens.get(better), tokens.get(worse)];
  const sums = lists.map(cumulative);
  const parts = lists[0].findIndex((token, at) => token.id !== lists[1][at]?.id);
  if (parts < 0) return [];
  const upTo = (list, step) => list[Math.min(step, list.length - 1)];
  const steps = Math.max(sums[0].length, sums[1].length) - 1;
  let last = -1;
  for (let step = parts + 1; step <= steps; step++) {
    if (upTo(sums[1], step) > upTo(sums[0], step)) last = step;
  }
  const name = (index) => shortName(names, index);
  const start = [name(better), " and ", name(worse), ` part at token ${parts + 1}. `];
  if (last < 0) return [...start, name(better), " is ahead from there on."];
  if (last >= steps) return start;
  const token = lists[1][last] ?? lists[0][last];
  return [
    ...start,
    name(worse),
    ` is still ahead after token ${last} (${nats(upTo(sums[1], last))} against ${nats(upTo(sums[0], last))}) and falls behind at ${quoted(token.text)}: `,
    lists[1].length > lists[0].length
      ? "the other has ended, and every further token costs."
      : "that token decides between them.",
  ];
}
