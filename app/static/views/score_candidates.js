/** The list of candidates, to be edited: one a row, however many there are. */

import { h } from "../dom.js";
import { plural } from "../format.js";
import { markBlanks } from "../marked_text.js";
import { VirtualList } from "../virtual_list.js";

const ROW_PX = 36;
const LINE_PX = 20;
const NOTE_LINE_PX = 18;
/** Of a note, in the narrowest window; what goes beyond its lines is in its tip. */
const NOTE_LINE_CHARACTERS = 44;
const NOTE_LINES = 4;

/**
 * Rows of candidates. Enter opens a new row, Shift+Enter breaks the line within one, arrows move
 * between rows, and many pasted lines become many rows.
 */
export class CandidateEditor {
  /**
   * @param {object} options
   * @param {() => void} options.onChange called after every change
   * @param {(text: string) => void} options.say tells of what has happened beside the focus
   */
  constructor({ onChange, say }) {
    this.onChange = onChange;
    this.say = say;
    this.rows = [];
    this.list = new VirtualList({
      rowHeight: (row) => ROW_PX + LINE_PX * (lines(row.text) - 1) + noteHeight(row.note),
      render: (row, index) => this.rowOf(row, index),
      label: "candidates",
      maxHeight: 330,
    });
    this.count = h("span", { class: "help" });
    const button = (text, click) => h("button", { type: "button", on: { click } }, text);
    this.element = h(
      "div",
      { class: "candidate-editor" },
      this.list.element,
      h(
        "div",
        { class: "row-of-controls" },
        button("Add a candidate", () => this.insert(this.rows.length, [""])),
        button("Remove all", () => this.removeAll()),
        this.count,
      ),
    );
  }

  /** The candidates' texts. */
  get value() {
    return this.rows.map((row) => row.text);
  }

  /** Show these candidates. */
  set value(texts) {
    this.rows = texts.map((text) => ({ text, note: undefined }));
    this.show();
  }

  /** Say something at single candidates, and nothing at the others: errors and warnings. */
  setNotes(notes) {
    this.rows.forEach((row, index) => (row.note = notes.get(index)));
    this.list.rows.forEach((shown, index) => {
      this.showNote(shown.querySelector(".candidate"), this.rows[index], index);
    });
    this.list.remeasure();
  }

  /** Focus the field of a candidate. */
  focus(index) {
    return this.list.focusRow(index, "textarea");
  }

  show() {
    this.list.show(this.rows);
    this.count.textContent = plural(this.rows.length, "candidate");
  }

  rowOf(row, index) {
    const input = h("textarea", {
      class: "candidate-text",
      rows: lines(row.text),
      wrap: "off",
      spellcheck: "false",
      autocapitalize: "off",
      "aria-label": `candidate ${index + 1}`,
    });
    input.value = row.text;
    input.addEventListener("input", () => this.edited(row, index, input));
    input.addEventListener("keydown", (event) => this.pressed(event, index, input));
    input.addEventListener("paste", (event) => this.pasted(event, index, input));
    const remove = () => this.remove(index);
    const shown = h(
      "div",
      { class: "candidate" },
      h("span", { class: "candidate-number", "aria-hidden": "true" }, `${index + 1}`),
      markBlanks(input).element,
      h(
        "button",
        {
          type: "button",
          class: "remove",
          "aria-label": `remove candidate ${index + 1}`,
          on: { click: remove },
        },
        "×",
      ),
    );
    this.showNote(shown, row, index);
    return shown;
  }

  showNote(shown, { note }, index) {
    const input = shown.querySelector("textarea");
    shown.querySelector(".candidate-note")?.remove();
    input.removeAttribute("aria-invalid");
    input.removeAttribute("aria-describedby");
    if (!note) return;
    const id = `candidate-note-${index}`;
    input.setAttribute("aria-describedby", id);
    if (note.kind === "error") input.setAttribute("aria-invalid", "true");
    shown.append(
      h("p", { class: `candidate-note note-${note.kind}`, id, title: note.text }, note.text),
    );
  }

  edited(row, index, input) {
    const height = lines(row.text);
    row.text = input.value;
    if (lines(row.text) !== height) {
      input.rows = lines(row.text);
      this.list.remeasure();
    }
    this.onChange();
  }

  pressed(event, index, input) {
    const { selectionStart: start, selectionEnd: end, value } = input;
    const isAlone = start === end && !event.shiftKey && !event.ctrlKey && !event.metaKey;
    const moves = {
      Enter: () => this.insert(index + 1, [""]),
      Backspace: () => this.remove(index, index - 1),
      ArrowUp: () => this.focus(index - 1),
      ArrowDown: () => this.focus(index + 1),
    };
    const applies = {
      Enter: isAlone || (start !== end && !event.shiftKey && !event.ctrlKey && !event.metaKey),
      Backspace: value === "" && this.rows.length > 1,
      ArrowUp: isAlone && !value.slice(0, start).includes("\n") && index > 0,
      ArrowDown: isAlone && !value.slice(end).includes("\n") && index < this.rows.length - 1,
    };
    if (event.isComposing || !applies[event.key]) return;
    event.preventDefault();
    moves[event.key]();
  }

  pasted(event, index, input) {
    const parts = event.clipboardData.getData("text/plain").replace(/\r\n?/gu, "\n").split("\n");
    if (parts.at(-1) === "") parts.pop();
    if (parts.length < 2) return;
    event.preventDefault();
    const { selectionStart: start, selectionEnd: end, value } = input;
    this.rows[index].text = value.slice(0, start) + parts[0];
    this.insert(index + 1, [...parts.slice(1, -1), parts.at(-1) + value.slice(end)]);
    this.say(`${parts.length} lines were pasted as ${parts.length} candidates`);
  }

  insert(place, texts) {
    this.rows.splice(place, 0, ...texts.map((text) => ({ text, note: undefined })));
    this.changed(place + texts.length - 1);
  }

  remove(index, next = index) {
    this.rows.splice(index, 1);
    if (!this.rows.length) this.rows.push({ text: "", note: undefined });
    this.changed(Math.max(0, Math.min(next, this.rows.length - 1)));
  }

  removeAll() {
    this.rows = [{ text: "", note: undefined }];
    this.changed(0);
  }

  changed(focused) {
    this.rows.forEach((row) => (row.note = undefined));
    this.show();
    this.focus(focused);
    this.onChange();
  }
}

const lines = (text) => text.split("\n").length;

function noteHeight(note) {
  if (!note) return 0;
  const wanted = Math.ceil(note.text.length / NOTE_LINE_CHARACTERS);
  return NOTE_LINE_PX * Math.min(wanted, NOTE_LINES) + 4;
}
