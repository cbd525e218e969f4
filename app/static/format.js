/** Numbers as the page shows them: always so many digits, so that columns can be compared. */

const MINUS = "−";

const signed = (text) => text.replace("-", MINUS);

/** Nats, or any log-probability, to four digits; a missing one is a dash. */
export function nats(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (value === Infinity) return "∞";
  if (value === -Infinity) return `${MINUS}∞`;
  return signed(value.toFixed(digits));
}

/** A probability in percent, with as many digits as tell it from 0 and from 100 %. */
export function percent(value) {
  if (value === null || value === undefined) return "–";
  const share = value * 100;
  if (share === 0) return "0 %";
  if (share < 0.001) return `${signed(share.toExponential(1))} %`;
  if (share > 99.995 && share < 100) return "> 99.99 %";
  return `${share.toFixed(share < 0.1 ? 4 : share < 10 ? 2 : 1)} %`;
}

/** What a number may be off by. */
export const error = (value) =>
  value === null || value === undefined ? "–" : `±${signed(value.toExponential(1))}`;

/** How many times as probable, for a difference of log-probabilities in nats. */
export function times(difference) {
  const ratio = Math.exp(difference);
  if (ratio < 10) return ratio.toFixed(2);
  if (ratio < 1e6) return count(Math.round(ratio));
  return ratio.toExponential(1);
}

/** A whole number, in groups of three digits. */
export const count = (value) => `${value}`.replace(/\B(?=(\d{3})+$)/gu, ",");

/** "1 token", "2 tokens". */
export const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
