/** Horizontal bars with error whiskers, which say their numbers to screen readers too. */

import { h } from "./dom.js";

const place = (x, min, max) => (max > min ? ((x - min) / (max - min)) * 100 : 0);

/**
 * One bar from zero to a value, with a whisker over what the value may be.
 *
 * @param {object} options
 * @param {number} options.value where the bar ends
 * @param {number} [options.low] the whisker's ends; without them there is no whisker
 * @param {number} [options.high]
 * @param {number} options.max the axis' end
 * @param {number} [options.min] the axis' start, 0 or below
 * @param {string} options.label what a screen reader says
 * @param {number[]} [options.segments] parts whose sum is the value, drawn one behind the other
 * @param {string} [options.color] a class that gives the bar its colour
 * @returns {HTMLElement}
 */
export function bar({ value, low, high, max, min = 0, label, segments, color = "" }) {
  const track = h("div", { class: `bar ${color}`, role: "img", "aria-label": label });
  let from = 0;
  for (const part of segments ?? [value]) {
    track.append(filled(from, from + part, min, max));
    from += part;
  }
  if (min < 0) track.append(mark("bar-zero", place(0, min, max)));
  if (low !== undefined && high !== undefined) {
    const whisker = mark("bar-whisker", place(low, min, max));
    whisker.style.width = `${place(high, min, max) - place(low, min, max)}%`;
    track.append(whisker);
  }
  return track;
}

function filled(from, to, min, max) {
  const part = mark("bar-fill", place(Math.min(from, to), min, max));
  part.style.width = `${Math.abs(place(to, min, max) - place(from, min, max))}%`;
  return part;
}

function mark(name, left) {
  const node = h("span", { class: name });
  node.style.left = `${left}%`;
  return node;
}
