/** How the view refers to a candidate: its text, blanks seen, in the colour that its line has. */

import { h } from "../dom.js";
import { visibleText } from "../token_text.js";

const COLORS = 8;
const SHOWN_CHARS = 60;
const SHORT_CHARS = 22;

/** The names of one answer's candidates. */
export class CandidateNames {
  /**
   * @param {string[]} texts
   * @param {number[]} colored the candidates that have a colour of their own; the first 8 get one
   */
  constructor(texts, colored) {
    this.texts = texts;
    this.places = new Map(colored.slice(0, COLORS).map((index, place) => [index, place + 1]));
  }

  /** The class that gives a candidate its colour; "" where it has none. */
  color(index) {
    const place = this.places.get(index);
    return place ? `series-${place}` : "";
  }
}

/** A candidate's text in its colour, cut where it is long. */
export function candidateName(names, index, most = SHOWN_CHARS) {
  const text = names.texts[index];
  const signs = [...text.slice(0, 2 * most + 2)];
  const shown = signs.length > most ? `${signs.slice(0, most - 1).join("")}…` : text;
  return h(
    "span",
    { class: `candidate-name ${names.color(index)}`, title: text },
    ...visibleText(shown),
  );
}

/** The same within a sentence: cut sooner. */
export const shortName = (names, index) => candidateName(names, index, SHORT_CHARS);
