/** Elements, built without a string of markup, so that no text can become any. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An HTML element.
 *
 * @param {string} tag
 * @param {object} properties `class`, `text`, `style: {property: value}`, `dataset: {name: value}`,
 *     `on: {event: listener}`; booleans set or leave out an attribute; `value`, `checked` and other
 *     properties of form controls are set as such; anything else is an attribute
 * @param {...(Node | string)} children null and undefined are left out
 * @returns {HTMLElement}
 */
export function h(tag, properties = {}, ...children) {
  return built(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return built(document.createElementNS(SVG, tag), attributes, children);
}

const LIVE = new Set(["value", "checked", "disabled", "hidden", "selected", "open"]);

function built(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name === "text") element.textContent = value;
    else if (name === "style") Object.assign(element.style, value);
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name === "on") listen(element, value);
    else if (LIVE.has(name) && name in element) element[name] = value;
    else if (typeof value === "boolean" && !name.startsWith("aria-")) {
      element.toggleAttribute(name, value);
    } else element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

function listen(element, listeners) {
  for (const [event, listener] of Object.entries(listeners)) {
    element.addEventListener(event, listener);
  }
}
