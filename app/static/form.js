/** Labelled fields, and the API's errors at the fields that they name. */

import { h } from "./dom.js";

let fields = 0;

/**
 * A control with its label, a line of help, and room for an error.
 *
 * @param {object} options
 * @param {string} options.name as the API names it, such as "context" or "candidates.0"
 * @param {string} options.label
 * @param {string | Node} [options.hint]
 * @param {HTMLElement} options.control an input, a select or a textarea, or what holds some
 * @returns {HTMLElement}
 */
export function field({ name, label, hint, control }) {
  const id = control.id || `field-${++fields}`;
  control.id = id;
  const isControl = control.matches("input, select, textarea, button");
  const help = hint && h("p", { class: "help", id: `${id}-help` }, hint);
  if (help) control.setAttribute("aria-describedby", help.id);
  const title = isControl
    ? h("label", { for: id }, label)
    : h("span", { class: "label", id: `${id}-label` }, label);
  if (!isControl) {
    control.setAttribute("role", "group");
    control.setAttribute("aria-labelledby", title.id);
  }
  return h("div", { class: "field", dataset: { name } }, title, control, help);
}

/**
 * Show an error at the field that it names, or at the nearest one around it, and focus that.
 *
 * @param {HTMLElement} form what holds the fields
 * @param {Error & {param?: string}} error
 */
export function showError(form, error) {
  clearErrors(form);
  const place = named(form, error.param);
  const text = h("p", { class: "error", role: "alert", id: `error-${++fields}` }, error.message);
  if (!place) {
    form.prepend(text);
    return;
  }
  place.append(text);
  const control = place.matches(CONTROLS) ? place : place.querySelector(CONTROLS);
  if (!control) return;
  control.setAttribute("aria-invalid", "true");
  control.setAttribute("aria-errormessage", text.id);
  control.focus({ preventScroll: false });
}

/** Remove what `showError` has shown. */
export function clearErrors(form) {
  form.querySelectorAll(".error").forEach((one) => one.remove());
  form.querySelectorAll("[aria-invalid]").forEach((one) => {
    one.removeAttribute("aria-invalid");
    one.removeAttribute("aria-errormessage");
  });
}

const CONTROLS = "input, select, textarea, button";

/** "candidates.3.text": the field of this name, of "candidates.3", or of "candidates". */
function named(form, param) {
  const parts = `${param ?? ""}`.split(".");
  for (let length = parts.length; param && length > 0; length--) {
    const name = CSS.escape(parts.slice(0, length).join("."));
    const found = form.querySelector(`[data-name="${name}"]`);
    if (found) return found;
  }
  return null;
}
