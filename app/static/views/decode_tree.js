/** What a search looked at, as a tree that is opened by mouse or keys. */

import { h } from "../dom.js";
import { nats, percent, plural } from "../format.js";
import { visibleText } from "../token_text.js";

/** Why the search did not go on from a node, by strategy. */
const CUT = {
  greedy: "not the most probable here",
  beam: "not among the beams of its step",
  exact: "could no longer be the best, or the budget ended",
};

const STATES = {
  returned: () => "part of what was found",
  expanded: ({ step }) => `asked on in round ${step + 1}`,
  completed: () => "a completion that lost",
  cut: (_, strategy) => `cut: ${CUT[strategy]}`,
};

/**
 * An ARIA tree. What was found is open at first; arrow keys move, open and close.
 *
 * @param {{nodes: object[], left_out: number}} tree as /v1/decode answers it
 * @param {"greedy" | "beam" | "exact"} strategy
 * @returns {HTMLElement}
 */
export function searchTree({ nodes, left_out: leftOut }, strategy) {
  const children = new Map();
  nodes.forEach((node, place) => {
    const key = node.parent ?? -1;
    if (!children.has(key)) children.set(key, []);
    children.get(key).push(place);
  });
  const built = new Tree(nodes, children, strategy);
  return h(
    "div",
    { class: "search-tree" },
    h(
      "p",
      { class: "help" },
      `${plural(nodes.length, "token")} of the search: each with its log-prob and the sum so far. ` +
        "Arrow keys move, right opens, left closes.",
      leftOut ? ` ${plural(leftOut, "more continuation")} that it was told of are not shown.` : "",
    ),
    built.element,
  );
}

class Tree {
  constructor(nodes, children, strategy) {
    this.nodes = nodes;
    this.children = children;
    this.strategy = strategy;
    this.element = h(
      "ul",
      { role: "tree", "aria-label": `Search tree of ${strategy}`, on: { keydown: (event) => this.move(event) } },
      ...(children.get(-1) ?? []).map((place) => this.item(place)),
    );
    const first = this.element.querySelector("[role=treeitem]");
    if (first) first.tabIndex = 0;
  }

  item(place) {
    const node = this.nodes[place];
    const hasChildren = this.children.has(place);
    const isOpen = hasChildren && node.state === "returned";
    const words = STATES[node.state](node, this.strategy);
    const row = h(
      "div",
      { class: "tree-row" },
      h("span", { class: "tree-mark", "aria-hidden": "true" }),
      h("span", { class: "mono tree-token" }, ...visibleText(node.text || "end")),
      h("span", { class: "number" }, percent(Math.exp(node.logprob))),
      h("span", { class: "number tree-total" }, nats(node.total)),
      h("span", { class: "tree-state" }, words),
    );
    const item = h(
      "li",
      {
        role: "treeitem",
        tabindex: "-1",
        class: `tree-node is-${node.state}`,
        dataset: { place },
        ...(hasChildren && { "aria-expanded": `${isOpen}` }),
        "aria-label":
          `${JSON.stringify(node.text)}, log-prob ${nats(node.logprob)}, sum ${nats(node.total)}, ${words}`,
      },
      row,
    );
    row.addEventListener("click", () => {
      this.focus(item);
      if (hasChildren) this.toggle(item, item.getAttribute("aria-expanded") !== "true");
    });
    if (isOpen) item.append(this.group(place));
    return item;
  }

  group(place) {
    return h("ul", { role: "group" }, ...this.children.get(place).map((child) => this.item(child)));
  }

  /** Children are built when they are first shown. */
  toggle(item, isOpen) {
    item.setAttribute("aria-expanded", `${isOpen}`);
    const group = item.querySelector(":scope > [role=group]");
    if (group) group.hidden = !isOpen;
    else if (isOpen) item.append(this.group(Number(item.dataset.place)));
  }

  focus(item) {
    this.element.querySelectorAll("[tabindex='0']").forEach((one) => (one.tabIndex = -1));
    item.tabIndex = 0;
    item.focus();
  }

  move(event) {
    const item = event.target.closest("[role=treeitem]");
    const next = item && this.next(event.key, item);
    if (next === undefined || next === null) return;
    event.preventDefault();
    if (next !== item) this.focus(next);
  }

  /** Where a key leads; the item itself where it opens or closes that. */
  next(key, item) {
    const shown = [...this.element.querySelectorAll("[role=treeitem]")].filter(
      (one) => !one.closest("[hidden]"),
    );
    const at = shown.indexOf(item);
    const expanded = item.getAttribute("aria-expanded");
    if (key === "ArrowDown") return shown[at + 1];
    if (key === "ArrowUp") return shown[at - 1];
    if (key === "Home") return shown[0];
    if (key === "End") return shown.at(-1);
    if (key === "ArrowRight" || key === "Enter") {
      if (expanded === "true") return key === "Enter" ? this.closed(item) : shown[at + 1];
      if (expanded === "false") this.toggle(item, true);
      return item;
    }
    if (key === "ArrowLeft") {
      if (expanded === "true") return this.closed(item);
      return item.parentElement.closest("[role=treeitem]");
    }
    return undefined;
  }

  closed(item) {
    this.toggle(item, false);
    return item;
  }
}
