/** What an answer says of single candidates, beside their scores. */

/**
 * Sort errors and warnings by the candidate that they are about.
 *
 * @param {{index: number, error: {message: string}}[]} failed results that are errors
 * @param {({message: string, param?: string, index?: number} | string)[]} [said]
 * @param {"warning" | "error"} [kind] of what is said
 * @returns {{notes: Map<number, {kind: string, text: string}>, others: string[]}} `others` are
 *     about no one candidate
 */
export function notesOf(failed, said = [], kind = "warning") {
  const notes = new Map();
  const others = [];
  for (const one of said) {
    const text = numbered(one.message ?? `${one}`);
    const place = placeOf(one);
    if (place === undefined) others.push(text);
    else
      notes.set(place, {
        kind,
        text: notes.has(place) ? `${notes.get(place).text} ${text}` : text,
      });
  }
  for (const { index, error } of failed) notes.set(index, { kind: "error", text: numbered(error.message) });
  return { notes, others };
}

/** With candidates named as they are numbered here, from 1. */
const numbered = (text) =>
  text.replace(/candidates\.(\d+)/gu, (_, place) => `candidate ${Number(place) + 1}`);

function placeOf(one) {
  if (Number.isInteger(one.index)) return one.index;
  const named = /^candidates\.(\d+)/u.exec(one.param ?? (typeof one === "string" ? one : ""));
  return named ? Number(named[1]) : undefined;
}
