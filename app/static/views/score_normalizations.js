/** The same candidates under each normalization: who wins, and why not the same one. */

import { bar } from "../bars.js";
import { h } from "../dom.js";
import { count, nats, plural } from "../format.js";
import { candidateName, shortName } from "./score_names.js";

const BASIC = [
  {
    id: "sum",
    title: "sum",
    by: "the sum",
    of: (one) => one.logprob,
    help: "log P of the whole text",
  },
  {
    id: "mean",
    title: "mean per token",
    by: "the mean per token",
    of: (one) => one.mean_logprob,
    help: "the sum divided by the tokens",
  },
  {
    id: "per_byte",
    title: "per byte",
    by: "the log-prob per byte",
    of: (one) => one.logprob_per_byte,
    help: "the sum divided by the UTF-8 bytes",
  },
];

const CHOSEN = {
  per_char: {
    title: "per character",
    by: "the log-prob per character",
    help: "the sum divided by the characters",
  },
  gnmt: { title: "gnmt", by: "gnmt", help: "between sum and mean" },
  pmi: { title: "pmi", by: "pmi", help: "the sum minus that under the context compared with" },
  calibrated: {
    title: "calibrated",
    by: "the calibrated score",
    help: "the sum minus its mean under contexts that say nothing",
  },
};

/** The normalizations that an answer has numbers for: three always, and the one that was asked for. */
export function kindsOf({ normalization }, ranked) {
  const chosen = CHOSEN[normalization];
  const all = chosen ? [...BASIC, { id: normalization, ...chosen, of: (one) => one.score }] : BASIC;
  return all.filter((kind) => ranked.every((one) => kind.of(one) !== undefined));
}

/**
 * Results in the order of a normalization.
 *
 * `rank` is competition rank; `isTied` says that the best cannot be told from it, as their scores
 * are closer than their numeric errors. Those of the normalization that was asked for are the
 * answer's; of another one the error is that of the sum, divided as the sum is.
 */
export function standings(ranked, kind, answer, normalization) {
  const isAnswered = kind.id === normalization;
  const rows = ranked.map((one) => ({
    one,
    value: kind.of(one),
    error: isAnswered ? one.numeric_error : errorOf(one, kind, answer),
  }));
  rows.sort((row, other) => other.value - row.value || row.one.index - other.one.index);
  let isTied = true;
  rows.forEach((row, place) => {
    const before = rows[place - 1];
    row.rank = before && before.value === row.value ? before.rank : place + 1;
    if (before) isTied &&= areTied(before, row, isAnswered);
    row.isTied = isTied;
  });
  return rows;
}

function areTied(before, row, isAnswered) {
  if (isAnswered) {
    return row.one.tie_group !== undefined && row.one.tie_group === before.one.tie_group;
  }
  return before.value - row.value <= (before.error ?? 0) + (row.error ?? 0);
}

function errorOf(one, kind, { numeric_error: error }) {
  if (error === undefined || one.token_count === undefined) return undefined;
  const divided = one.logprob === 0 ? 1 : kind.of(one) / one.logprob;
  return error * one.token_count * divided;
}

/** Those that lead under some normalization, and the best few of the one that was asked for. */
export function leaders(ranked, places, count) {
  const first = places.map((rows) => rows[0].one.index);
  return [...new Set([...first, ...ranked.slice(0, count).map((one) => one.index)])];
}

/** One column for each normalization, each in its own order, the winner on top. */
export function normalizationColumns({ kinds, places, shown, names, tokens }) {
  return h(
    "div",
    { class: kinds.length === 4 ? "normalizations four" : "normalizations" },
    ...kinds.map((kind, column) => columnOf(kind, places[column], shown, names, tokens)),
  );
}

function columnOf(kind, rows, shown, names, tokens) {
  const inSight = rows.filter((row) => shown.includes(row.one.index));
  const ends = inSight.flatMap(({ value, error = 0 }) => [value - error, value + error]);
  const isCost = Math.max(...ends) <= Math.max(...inSight.map((row) => row.error ?? 0));
  const scale = isCost
    ? { max: -Math.min(...ends) }
    : { min: Math.min(0, ...ends), max: Math.max(0, ...ends) };
  const rest = rows.length - inSight.length;
  const ties = rows.filter((row) => row.isTied).length;
  const drawn = { kind, scale, isCost, ties, names, tokens };
  return h(
    "section",
    { class: "normalization", "data-kind": kind.id },
    h("h3", {}, kind.title),
    h(
      "p",
      { class: "help" },
      `${kind.help}; ${isCost ? "shorter is better" : "further right is better"}`,
    ),
    h("ol", {}, ...inSight.map((row) => rowOf(row, drawn))),
    rest > 0 ? h("p", { class: "help" }, `and ${count(rest)} more`) : null,
  );
}

function rowOf({ one, value, error, rank, isTied }, { kind, scale, isCost, ties, names, tokens }) {
  const sign = isCost ? -1 : 1;
  const parts =
    kind.id === "sum" ? tokens.get(one.index)?.map((token) => sign * token.logprob) : undefined;
  return h(
    "li",
    { class: `standing${isTied ? " wins" : ""}`, value: rank, "data-index": one.index },
    h("span", { class: "standing-rank" }, `${rank}`),
    candidateName(names, one.index),
    h("span", { class: "badge", hidden: !isTied }, isTied && ties > 1 ? "tied" : "wins"),
    h("span", { class: "number", title: `${value}` }, nats(value)),
    bar({
      value: sign * value,
      ...(error !== undefined && { low: sign * value - error, high: sign * value + error }),
      ...scale,
      segments: parts,
      color: names.color(one.index),
      label: `${nats(value)} nats${parts ? `, ${parts.length} tokens` : ""}`,
    }),
  );
}

/**
 * Who wins by which normalization, and why not the same one, in words.
 *
 * @returns {HTMLElement} of class `changes` where not all agree
 */
export function explanation({ kinds, places, names }) {
  const winners = places.map((rows) => rows[0]);
  const name = (one) => shortName(names, one.index);
  if (places[0].length < 2) return h("p", {}, "One candidate alone wins by every normalization.");
  const ties = places.flatMap((rows, at) => tieWords(rows, kinds[at], name));
  if (new Set(winners.map((row) => row.one.index)).size === 1) {
    const by = kinds.map((kind) => kind.by).join(", by ");
    return h("div", {}, h("p", {}, `By ${by}: `, name(winners[0].one), " wins."), ...ties);
  }
  return h(
    "div",
    { class: "changes" },
    h("p", {}, h("strong", {}, "The winner changes with the normalization.")),
    h("ul", {}, ...kinds.map((kind, at) => winWords(kind, places[at], at, winners, name))),
    ...lengthWords(kinds, winners, name),
    ...byteWords(kinds, winners, name, names),
    ...ties,
  );
}

function winWords(kind, rows, at, winners, name) {
  const rival = rows.find((row) => row.one.index === rivalOf(at, winners)) ?? rows[1];
  return h(
    "li",
    {},
    `By ${kind.by} `,
    name(rows[0].one),
    `${rows[1].isTied ? " leads" : " wins"}: ${nats(rows[0].value)} against ${nats(rival.value)} nats.`,
  );
}

/** The winner to compare this one with: the first that is another. */
const rivalOf = (at, winners) =>
  winners.map((row) => row.one.index).find((index) => index !== winners[at].one.index);

function lengthWords(kinds, winners, name) {
  const mean = kinds.findIndex((kind) => kind.id === "mean");
  if (kinds[0].id !== "sum" || mean < 0) return [];
  const [short, long] = [winners[0].one, winners[mean].one];
  if (long.token_count <= short.token_count) return [];
  return [
    h(
      "p",
      {},
      name(long),
      ` has ${plural(long.token_count, "token")}, `,
      name(short),
      ` ${short.token_count}. The sum adds the log-prob of every token, and none is above 0, so each `,
      `further token costs: ${nats(-long.logprob)} nats in all against ${nats(-short.logprob)}. The `,
      "mean divides by the number of tokens, so tokens that follow almost by themselves help: ",
      `${nats(-long.mean_logprob)} nats a token against ${nats(-short.mean_logprob)}.`,
    ),
  ];
}

/** Where neither sum nor mean puts the same one first as the bytes do. */
function byteWords(kinds, winners, name, { texts }) {
  const at = kinds.findIndex((kind) => kind.id === "per_byte");
  const [first, winner] = [winners[0].one, winners[at]?.one];
  const others = winners.slice(0, at).map((row) => row.one.index);
  if (!winner || others.includes(winner.index)) return [];
  const bytes = (one) => new TextEncoder().encode(texts[one.index]).length;
  return [
    h(
      "p",
      {},
      `Per byte the sum is divided by the text's length in UTF-8: ${bytes(winner)} bytes for `,
      name(winner),
      `, ${bytes(first)} for `,
      name(first),
      ".",
    ),
  ];
}

function tieWords(rows, kind, name) {
  const tied = rows.filter((row) => row.isTied);
  if (tied.length < 2) return [];
  const named = tied
    .slice(0, 3)
    .flatMap((row, at) => (at ? [" and ", name(row.one)] : [name(row.one)]));
  const more = tied.length > 3 ? ` and ${tied.length - 3} more` : "";
  return [
    h(
      "p",
      { class: "ties" },
      `By ${kind.by} `,
      ...named,
      `${more} cannot be told apart: their scores are closer than their numeric error.`,
    ),
  ];
}
