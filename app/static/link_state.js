/** A view's whole state in the address: #view=base64url(JSON of what differs from the initial). */

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

/**
 * The address' fragment for a state.
 *
 * @param {{id: string, initial: object}} view
 * @param {object} state plain JSON
 * @returns {string} with its "#"
 */
export function linkOf(view, state) {
  const changed = Object.entries(state).filter(
    ([name, value]) => JSON.stringify(value) !== JSON.stringify(view.initial[name]),
  );
  if (!changed.length) return `#${view.id}`;
  return `#${view.id}=${encoded(JSON.stringify(Object.fromEntries(changed)))}`;
}

/**
 * What a fragment names.
 *
 * @param {string} hash with or without its "#"
 * @returns {{id: string, changed: object, isDamaged: boolean}} `id` is empty where it names nothing
 */
export function readLink(hash) {
  const [id, ...rest] = hash.replace(/^#/, "").split("=");
  if (!rest.length) return { id, changed: {}, isDamaged: false };
  try {
    const changed = JSON.parse(decoded(rest.join("=")));
    if (typeof changed === "object" && changed !== null && !Array.isArray(changed)) {
      return { id, changed, isDamaged: false };
    }
  } catch {
    // Cut off on its way, or never one of ours: said below.
  }
  return { id, changed: {}, isDamaged: true };
}

/**
 * The view's initial state with what a link changes; what the view does not know, or knows as
 * another kind of value, is damage.
 */
export function stateOf(view, changed) {
  const known = Object.entries(changed).filter(
    ([name, value]) => name in view.initial && kindOf(value) === kindOf(view.initial[name]),
  );
  return {
    state: { ...structuredClone(view.initial), ...Object.fromEntries(known) },
    isDamaged: known.length < Object.keys(changed).length,
  };
}

const kindOf = (value) => (Array.isArray(value) ? "array" : value === null ? "null" : typeof value);

function encoded(text) {
  let binary = "";
  for (const byte of encoder.encode(text)) binary += String.fromCharCode(byte);
  return btoa(binary).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

function decoded(text) {
  const binary = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
  return decoder.decode(Uint8Array.from(binary, (sign) => sign.charCodeAt(0)));
}
