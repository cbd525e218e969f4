/** A text field in which blanks at the ends of lines can be seen. */

import { h } from "./dom.js";
import { blankEnds } from "./token_text.js";

const SIGNS = { " ": "·", "\t": "→" };

/**
 * Lay signs for leading and trailing blanks and for line breaks under a text field.
 *
 * @param {HTMLTextAreaElement} input in the document or not; it is put into the returned element
 * @returns {{element: HTMLElement, refresh: () => void}} call `refresh` after setting its value
 */
export function markBlanks(input) {
  const marks = h("div", { class: "blank-marks", "aria-hidden": "true" });
  const element = h("div", { class: "marked-text" });
  input.replaceWith(element);
  element.append(marks, input);
  const follow = () => {
    marks.scrollTop = input.scrollTop;
    marks.scrollLeft = input.scrollLeft;
  };
  const refresh = () => {
    const lines = input.value.split("\n");
    marks.replaceChildren(
      ...lines.flatMap((line, place) => lineMarks(line, place < lines.length - 1)),
    );
    // In a frame: to ask now would lay out the page at once.
    requestAnimationFrame(follow);
  };
  input.addEventListener("input", refresh);
  input.addEventListener("scroll", follow, { passive: true });
  refresh();
  return { element, refresh };
}

function lineMarks(line, isBroken) {
  const { head, middle, tail } = blankEnds(line, (mark) => mark in SIGNS);
  const sign = (text) => h("span", { class: "blank" }, text);
  const signs = (blanks) => [...blanks].map((each) => sign(SIGNS[each]));
  return [
    ...signs(head),
    ...(middle ? [h("span", { class: "unseen" }, middle)] : []),
    ...signs(tail),
    ...(isBroken ? [h("span", { class: "blank line-end" }, "↵"), "\n"] : []),
  ];
}
