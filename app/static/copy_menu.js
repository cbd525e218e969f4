/** "Copy link", "copy as curl", "copy as Python" of a view. */

import { BASE } from "./api.js";
import { h } from "./dom.js";
import { curlCommand, pythonProgram } from "./snippets.js";

/**
 * @param {object} options
 * @param {() => ({path: string, body: object} | undefined)} options.request the view's last one
 * @param {() => boolean} options.hasKey whether the server wants a key
 * @param {(text: string) => void} options.say tells what was done
 * @param {() => void} options.writeLink puts the state into the address
 * @returns {HTMLElement}
 */
export function copyMenu({ request, hasKey, say, writeLink }) {
  const ofRequest = (write) => () => {
    const sent = request();
    return sent && write(BASE, sent.path, sent.body, hasKey());
  };
  const buttons = [
    ["Copy link", "The link", () => (writeLink(), location.href)],
    ["Copy as curl", "The curl command", ofRequest(curlCommand)],
    ["Copy as Python", "The Python program", ofRequest(pythonProgram)],
  ].map(([label, what, text]) =>
    h("button", { type: "button", on: { click: () => copy(text(), what, say) } }, label),
  );
  return h("div", { class: "copy-menu", role: "group", "aria-label": "Copy" }, ...buttons);
}

async function copy(text, what, say) {
  if (!text) {
    say("There is no request to copy yet.");
    return;
  }
  try {
    await navigator.clipboard.writeText(text);
    say(`${what} is copied.`);
  } catch {
    // No clipboard for pages that came over plain HTTP from another machine.
    showText(text, what);
  }
}

/** The text to be copied by hand. */
function showText(text, what) {
  const area = h("textarea", { readonly: true, rows: 12, "aria-label": what, value: text });
  const dialog = h(
    "dialog",
    { class: "wide", "aria-label": what },
    area,
    h("button", { type: "button", on: { click: () => dialog.close() } }, "Close"),
  );
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  area.select();
}
