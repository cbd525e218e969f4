/** Tabs as the ARIA practices have them: one tab stop, arrow keys, Home and End. */

import { h } from "./dom.js";

const MOVES = {
  ArrowLeft: (at, count) => (at + count - 1) % count,
  ArrowRight: (at, count) => (at + 1) % count,
  Home: () => 0,
  End: (at, count) => count - 1,
};

export class Tabs {
  /**
   * @param {{id: string, title: string}[]} entries
   * @param {(id: string, left: string) => void} onChosen by the person: selects the tab, from
   *     another one
   */
  constructor(entries, onChosen) {
    this.onChosen = onChosen;
    this.buttons = entries.map(({ id, title }) =>
      h(
        "button",
        {
          ...{ type: "button", role: "tab", id: `tab-${id}`, "aria-controls": `panel-${id}` },
          dataset: { id },
          on: { click: () => this.choose(id), keydown: (event) => this.move(event) },
        },
        title,
      ),
    );
    this.panels = new Map(
      entries.map(({ id }) => [
        id,
        h("section", { role: "tabpanel", id: `panel-${id}`, "aria-labelledby": `tab-${id}` }),
      ]),
    );
    this.list = h("div", { role: "tablist", "aria-label": "Views" }, ...this.buttons);
  }

  /** Show the panel of this tab. */
  select(id) {
    for (const button of this.buttons) {
      const isSelected = button.dataset.id === id;
      button.setAttribute("aria-selected", `${isSelected}`);
      button.tabIndex = isSelected ? 0 : -1;
    }
    this.panels.forEach((panel, name) => (panel.hidden = name !== id));
  }

  get selected() {
    return this.buttons.find((one) => one.getAttribute("aria-selected") === "true")?.dataset.id;
  }

  choose(id) {
    if (id !== this.selected) this.onChosen(id, this.selected);
  }

  move(event) {
    const next = MOVES[event.key]?.(this.buttons.indexOf(event.target), this.buttons.length);
    if (next === undefined) return;
    event.preventDefault();
    this.buttons[next].focus();
    this.choose(this.buttons[next].dataset.id);
  }
}
