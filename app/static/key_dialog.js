/** The key of a server that wants one: asked for when it is needed, kept in memory alone. */

import { ApiError } from "./api.js";
import { h } from "./dom.js";

/**
 * Ask the person for the key.
 *
 * @param {boolean} wasWrong whether the server has refused the one before
 * @returns {Promise<string>} rejects where the dialog is closed without one
 */
export function askKey(wasWrong) {
  return new Promise((resolve, reject) => {
    const input = h("input", {
      type: "password",
      id: "api-key",
      autocomplete: "off",
      required: true,
      ...(wasWrong && { "aria-invalid": "true", "aria-describedby": "api-key-wrong" }),
    });
    const form = h(
      "form",
      { class: "stack" },
      h("h2", { id: "key-title" }, "This server wants an API key"),
      h("label", { for: "api-key" }, "API key"),
      input,
      wasWrong ? h("p", { class: "error", id: "api-key-wrong" }, "The server refuses this key.") : null,
      h("p", { class: "help" }, "It stays in this page's memory, and is gone with it."),
      h(
        "div",
        { class: "actions" },
        h("button", { class: "primary", type: "submit" }, "Continue"),
        h("button", { type: "button", on: { click: () => dialog.close() } }, "Cancel"),
      ),
    );
    const dialog = h("dialog", { "aria-labelledby": "key-title" }, form);
    let key;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      key = input.value.trim();
      if (key) dialog.close();
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (key) resolve(key);
      else reject(new ApiError("Without an API key this server answers nothing.", { status: 401 }));
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
