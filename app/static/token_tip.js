/** The one box that tells all of a token while it has the focus or the pointer is on it. */

import { h } from "./dom.js";

const LEAVE_MS = 120;
const GAP = 6;

let box;
let owner;
let leaving;

function made() {
  if (box) return box;
  box = h("div", { class: "token-tip", role: "tooltip", id: "token-tip", hidden: true });
  box.addEventListener("mouseenter", () => clearTimeout(leaving));
  box.addEventListener("mouseleave", () => owner && hideTip(owner));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") closeTip();
  });
  document.addEventListener("scroll", () => owner && place(owner), {
    capture: true,
    passive: true,
  });
  (document.querySelector("main") ?? document.body).append(box);
  return box;
}

/**
 * Show the box under an element, and name it as the element's description.
 *
 * @param {HTMLElement} element
 * @param {() => Node[]} content
 */
export function showTip(element, content) {
  clearTimeout(leaving);
  closeTip();
  owner = element;
  made().replaceChildren(...content());
  box.hidden = false;
  element.setAttribute("aria-describedby", box.id);
  place(element);
}

/** Hide the box, if it is this element's and nothing holds it: the focus, or the pointer on it. */
export function hideTip(element) {
  if (owner !== element) return;
  clearTimeout(leaving);
  leaving = setTimeout(() => {
    if (owner === element && document.activeElement !== element) closeTip();
  }, LEAVE_MS);
}

/** Hide the box, whoever has it: for views that take their tokens away. */
export function closeTip() {
  if (!owner) return;
  owner.removeAttribute("aria-describedby");
  owner = undefined;
  box.hidden = true;
}

function place(element) {
  const at = element.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = box;
  const left = Math.max(GAP, Math.min(at.left, document.documentElement.clientWidth - width - GAP));
  const fitsBelow = at.bottom + GAP + height <= innerHeight;
  const top = fitsBelow || at.top < height + GAP ? at.bottom + GAP : at.top - height - GAP;
  box.style.left = `${left}px`;
  box.style.top = `${top}px`;
}
