/** A list of any length of which only the rows in sight are in the document. */

import { h } from "./dom.js";

const OVERSCAN_ROWS = 4;

/**
 * A scrolling list. Each row is a list item that knows its place and the length of the whole list,
 * so that a screen reader says "12 of 1000".
 */
export class VirtualList {
  /**
   * @param {object} options
   * @param {number | ((item: any) => number)} options.rowHeight pixels of a row, or of this item's
   * @param {(item: any, index: number) => Node} options.render what a row shows
   * @param {string} [options.label] the list's name for screen readers
   * @param {number} [options.maxHeight] pixels from which on the list scrolls
   */
  constructor({ rowHeight, render, label = "", maxHeight = 400 }) {
    this.heightOf = typeof rowHeight === "function" ? rowHeight : () => rowHeight;
    this.render = render;
    this.maxHeight = maxHeight;
    this.items = [];
    this.tops = [0];
    this.rows = new Map();
    this.space = h("div", { class: "virtual-space", role: "list" });
    if (label) this.space.setAttribute("aria-label", label);
    this.element = h("div", { class: "virtual-list" }, this.space);
    this.element.addEventListener("scroll", () => this.later(), { passive: true });
    this.element.addEventListener("focusout", () => this.later());
    this.resized = new ResizeObserver(() => this.later());
    this.resized.observe(this.element);
  }

  /** Show these items, from where the list is scrolled to; every row is built anew. */
  show(items) {
    this.items = items;
    this.rows.forEach((row) => row.remove());
    this.rows.clear();
    this.measure();
    this.draw();
  }

  /** Build the row of one item anew, or all that changed their height. */
  update(index) {
    this.rows.get(index)?.remove();
    this.rows.delete(index);
    this.remeasure();
  }

  /** Place the rows anew after an item has changed its height; no row is built again. */
  remeasure() {
    this.measure();
    this.rows.forEach((row, index) => this.place(row, index));
    this.draw();
  }

  /** Scroll to an item and focus what the selector finds in its row. */
  focusRow(index, selector) {
    if (index < 0 || index >= this.items.length) return false;
    this.reveal(index);
    const found = this.rows.get(index)?.querySelector(selector);
    found?.focus({ preventScroll: true });
    return Boolean(found);
  }

  /** Scroll so far that the item is in sight. */
  reveal(index) {
    const top = this.tops[index];
    const bottom = this.tops[index + 1];
    const { scrollTop, clientHeight } = this.element;
    if (top < scrollTop) this.element.scrollTop = top;
    else if (bottom > scrollTop + clientHeight) this.element.scrollTop = bottom - clientHeight;
    this.draw();
  }

  /** The item whose row holds this node; -1 where none does. */
  indexOf(node) {
    const row = node.closest?.("[role=listitem]");
    return row && this.space.contains(row) ? Number(row.getAttribute("aria-posinset")) - 1 : -1;
  }

  measure() {
    this.tops = [0];
    for (const item of this.items) this.tops.push(this.tops.at(-1) + this.heightOf(item));
    const height = this.tops.at(-1);
    this.space.style.height = `${height}px`;
    this.element.style.height = `${Math.min(height, this.maxHeight)}px`;
    this.element.classList.toggle("scrolls", height > this.maxHeight);
  }

  later() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      this.draw();
    });
  }

  draw() {
    // Where everything is in sight it need not be asked for, which would lay out the page at once.
    const scrollTop = this.tops.at(-1) > this.maxHeight ? this.element.scrollTop : 0;
    const height = Math.min(this.maxHeight, this.tops.at(-1));
    const first = Math.max(0, this.at(scrollTop) - OVERSCAN_ROWS);
    const last = Math.min(this.items.length, this.at(scrollTop + height) + 1 + OVERSCAN_ROWS);
    this.rows.forEach((row, index) => {
      const isInSight = index >= first && index < last;
      if (isInSight || row.contains(document.activeElement)) return;
      row.remove();
      this.rows.delete(index);
    });
    for (let index = first; index < last; index++) {
      if (!this.rows.has(index)) this.insert(index);
    }
  }

  insert(index) {
    const row = h(
      "div",
      {
        class: "virtual-row",
        role: "listitem",
        "aria-setsize": this.items.length,
        "aria-posinset": index + 1,
      },
      this.render(this.items[index], index),
    );
    this.place(row, index);
    const next = [...this.rows.keys()].filter((key) => key > index).sort((a, b) => a - b)[0];
    this.space.insertBefore(row, next === undefined ? null : this.rows.get(next));
    this.rows.set(index, row);
  }

  place(row, index) {
    row.style.transform = `translateY(${this.tops[index]}px)`;
    row.style.height = `${this.tops[index + 1] - this.tops[index]}px`;
  }

  /** The item at this height, by bisection. */
  at(height) {
    let low = 0;
    let high = this.items.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.tops[middle + 1] <= height) low = middle + 1;
      else high = middle;
    }
    return Math.min(low, Math.max(0, this.items.length - 1));
  }
}
