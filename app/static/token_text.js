/** Text as the coloured tokens that it was scored by. */

import { h } from "./dom.js";
import { nats, percent } from "./format.js";
import { hideTip, showTip } from "./token_tip.js";

/**
 * What tokens can be coloured by. `steps` are the ends of the colours from mild to strong, `names`
 * what a legend says of each.
 */
export const MEASURES = {
  logprob: {
    title: "log-prob",
    help: "log P of the token given all before it, in nats: 0 is certain, lower is rarer",
    of: (token) => token.logprob,
    show: (value) => nats(value),
    level: (value) => level(-value, [0.6931, 2.3026, 4.6052, 6.9078]),
    names: ["over 50 %", "over 10 %", "over 1 %", "over 0.1 %", "rarer"],
  },
  rank: {
    title: "rank",
    help: "1 + the number of tokens that are more probable at this place",
    of: (token) => token.rank,
    show: (value) => `#${value}`,
    level: (value) => level(value, [1, 5, 50, 1000]),
    names: ["1", "to 5", "to 50", "to 1,000", "behind"],
  },
  entropy: {
    title: "entropy",
    help: "of the whole distribution at the token's place, in nats: how open the model was",
    of: (token) => token.entropy,
    show: (value) => nats(value),
    level: (value) => level(value, [0.5, 1.5, 3, 5]),
    names: ["to 0.5", "to 1.5", "to 3", "to 5", "more"],
  },
};

const level = (value, steps) => {
  const found = steps.findIndex((step) => value <= step);
  return found < 0 ? steps.length : found;
};

/**
 * Blanks at the ends of a text, and every line break, drawn so that they can be seen; on one line.
 *
 * @param {string} text
 * @returns {Node[]}
 */
export function visibleText(text) {
  const { head, middle, tail } = blankEnds(text, (sign) => /\s/u.test(sign));
  const inner = middle.split("\n").flatMap((line, place) => (place ? [blank("↵"), line] : [line]));
  return [...blanks(head), ...inner, ...blanks(tail)].filter((part) => part !== "");
}

/** The text in three: what is blank at its two ends, and what lies between. */
export function blankEnds(text, isBlank) {
  let start = 0;
  let end = text.length;
  while (start < end && isBlank(text[start])) start += 1;
  while (end > start && isBlank(text[end - 1])) end -= 1;
  return { head: text.slice(0, start), middle: text.slice(start, end), tail: text.slice(end) };
}

const SIGNS = { " ": "·", "\n": "↵", "\t": "→", "\r": "␍" };
const blanks = (text) => [...text].map((sign) => blank(SIGNS[sign] ?? "⍽"));
const blank = (sign) => h("span", { class: "blank" }, sign);

/** A text in quotes, with line breaks spelled out, for sentences that are read aloud. */
export const quoted = (text) => JSON.stringify(text);

/**
 * Tokens side by side, coloured by a measure. The arrow keys move from token to token; hover and
 * focus show all that is known of one, Escape hides it.
 *
 * @param {object[]} tokens as /v1/score and /v1/decode list them; `entropy` where it is known
 * @param {object} options
 * @param {"logprob" | "rank" | "entropy"} [options.measure]
 * @param {string} [options.label] what the tokens are, for screen readers
 * @param {number} [options.contextBytes] where the context ends, in the bytes that `start` and
 *     `end` count: what lies before is marked as the context's
 * @returns {HTMLElement}
 */
export function tokenText(tokens, { measure = "logprob", label = "tokens", contextBytes } = {}) {
  const parts = tokens.map((token, place) => tokenPart(token, place, measure, contextBytes));
  const element = h(
    "div",
    { class: "token-text", role: "group", "aria-label": `${label}; arrow keys move` },
    ...parts,
  );
  if (parts.length) parts[0].tabIndex = 0;
  element.addEventListener("keydown", (event) => move(event, parts));
  return element;
}

function tokenPart(token, place, measure, contextBytes) {
  const { of, show, level: levelOf, title } = MEASURES[measure];
  const value = of(token);
  const known = value !== undefined;
  const element = h(
    "button",
    {
      type: "button",
      class: `token ${known ? `level-${levelOf(value)}` : "level-unknown"}`,
      tabindex: "-1",
      "aria-label": `${quoted(token.text)}, ${title} ${known ? show(value) : "unknown"}`,
    },
    h("span", { class: "token-content" }, ...content(token, contextBytes)),
    h("span", { class: "token-value" }, known ? show(value) : "–"),
  );
  const tip = () => showTip(element, () => description(token, place));
  element.addEventListener("mouseenter", tip);
  element.addEventListener("focus", tip);
  element.addEventListener("mouseleave", () => hideTip(element));
  element.addEventListener("blur", () => hideTip(element));
  return element;
}

/** The token's text; what of it belongs to the context is set apart. */
function content({ text, bytes, start, end }, contextBytes) {
  if (contextBytes === undefined || start === undefined || start >= contextBytes || start === end) {
    return visibleText(text);
  }
  const decoded = (part) => new TextDecoder().decode(new Uint8Array(part));
  const own = bytes.slice(contextBytes - start);
  return [
    h(
      "span",
      { class: "of-context" },
      ...visibleText(decoded(bytes.slice(0, contextBytes - start))),
    ),
    ...(own.length ? [h("span", { class: "context-end" }), ...visibleText(decoded(own))] : []),
  ];
}

/** Of a token that is no text by itself: a part of a character. */
const hex = (bytes) => bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");

function description(token, place) {
  const rows = [
    ["log-prob", `${nats(token.logprob)} nats`],
    ["probability", percent(Math.exp(token.logprob))],
    ["rank", token.rank ?? "not computed"],
    ["entropy", token.entropy === undefined ? "not known yet" : `${nats(token.entropy)} nats`],
    ["token", `${place + 1}, id ${token.id}`],
    ...(token.text.includes("\uFFFD") ? [["bytes", hex(token.bytes)]] : []),
  ];
  return [
    h("strong", {}, quoted(token.text)),
    h("dl", {}, ...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, `${value}`)])),
    ...alternatives(token),
  ];
}

function alternatives({ id, top_logprobs: top = [] }) {
  if (!top.length) return [];
  const rows = top.map((other) =>
    h(
      "li",
      other.id === id ? { class: "is-this" } : {},
      h("span", {}, quoted(other.text)),
      " ",
      h("span", { class: "number" }, nats(other.logprob)),
    ),
  );
  return [h("p", {}, "most probable here"), h("ol", {}, ...rows)];
}

const MOVES = {
  ArrowLeft: (at) => at - 1,
  ArrowRight: (at) => at + 1,
  Home: () => 0,
  End: (at, count) => count - 1,
};

function move(event, parts) {
  const next = MOVES[event.key]?.(parts.indexOf(document.activeElement), parts.length);
  if (next === undefined || !parts[next]) return;
  event.preventDefault();
  parts.forEach((part, place) => (part.tabIndex = place === next ? 0 : -1));
  parts[next].focus();
}

/** The colours of a measure and what they mean. */
export function tokenLegend(measure) {
  const { names, title, help } = MEASURES[measure];
  return h(
    "div",
    { class: "token-legend" },
    h("span", { class: "legend-title" }, title),
    ...names.map((name, place) => h("span", { class: `legend-step level-${place}` }, name)),
    h("span", { class: "help" }, help),
  );
}
