/** Where context and candidates met, and what the model gives to all other texts. */

import { bar } from "../bars.js";
import { h } from "../dom.js";
import { percent, plural } from "../format.js";
import { visibleText } from "../token_text.js";
import { candidateName } from "./score_names.js";

const SHOWN_CHARS = 80;

/** The bytes of a context. */
export const bytesOf = (context) => new TextEncoder().encode(context);

/** The context's end drawn up to where scoring starts, and what that means in words. */
export function boundaryFigure({ context, boundary, names, ranked }) {
  const bytes = bytesOf(context);
  const split = bytes.length - boundary.shift_bytes;
  const decoded = (part) => new TextDecoder().decode(part);
  const before = [...decoded(bytes.slice(0, split))];
  const head = before.slice(-SHOWN_CHARS).join("");
  return h(
    "div",
    { class: "boundary" },
    h(
      "p",
      { class: "boundary-text" },
      h("span", { class: "given" }, before.length > SHOWN_CHARS ? "…" : "", ...visibleText(head)),
      h("span", { class: "scoring-starts", role: "img", "aria-label": "scoring starts here" }),
      h("span", { class: "of-context" }, ...visibleText(decoded(bytes.slice(split)))),
      ranked.length ? candidateName(names, ranked[0].index) : null,
    ),
    h("p", { class: "help" }, boundaryWords(boundary)),
  );
}

function boundaryWords({
  policy,
  start_token: start,
  shift_bytes: shift,
  context_tokens: given,
  bos_added: bos,
}) {
  const added = bos ? ", what was put before it included" : "";
  const first = `Boundary ${policy}: the context has ${plural(given, "token")}${added}. `;
  if (policy === "marginal") {
    return `${first}The score is summed over every way in which tokens can spell the candidate behind it.`;
  }
  if (!shift && start >= given) {
    return `${first}Scoring starts behind its last one: nothing of the context is scored.`;
  }
  return (
    `${first}Scoring starts behind token ${start}: of the context's end, ${plural(shift, "byte")} ` +
    "(underlined) stand in tokens that are scored with the candidates, for all of them alike."
  );
}

/** What is left for all texts that are not among the candidates. */
export function offMass({ off_candidate_mass: mass, off_candidate_mass_bounds: bounds, boundary }) {
  if (mass === undefined && bounds) {
    return h(
      "p",
      {},
      `Texts that are not among the candidates have ${percent(bounds[0])} to ${percent(bounds[1])} of the model's probability.`,
    );
  }
  if (mass === undefined) return h("p", { class: "help" }, whyUnknown(boundary));
  return h(
    "div",
    { class: "off-mass" },
    bar({
      value: 1 - mass,
      max: 1,
      label: `${percent(1 - mass)} of the probability is the candidates'`,
    }),
    h(
      "p",
      {},
      "The candidates together have ",
      h("strong", { class: "number" }, percent(1 - mass)),
      " of the model's probability; ",
      h("strong", { class: "number off-candidate-mass", title: `${mass}` }, percent(mass)),
      " goes to texts that are not among them. A share compares the candidates with each other; it is not the probability of the text.",
    ),
  );
}

/** The page has every candidate scored to its end, which leaves two reasons. */
function whyUnknown({ shift_bytes: shift }) {
  const why = shift ? "scoring starts within the context" : "one candidate begins another";
  return `What goes to texts that are not among the candidates is not known here: ${why}.`;
}
