/** The requests of the view: what is asked for, and in how much detail. */

/** Up to so many candidates come with their tokens at once, and may be open at a time. */
export const MAX_OPEN = 16;

/** Beyond so many candidates an answer comes in columns: the server's `limits.max_results`. */
const MAX_RESULTS = 4096;

const ALTERNATIVES = 5;

/** A text has no more tokens than bytes, and this many with their alternatives fit any answer. */
const MAX_LISTED_BYTES = 3000;

/** What both routes that are asked have in common. */
function common(state) {
  return {
    context: state.context,
    ...(state.boundary && { boundary: state.boundary }),
    ...(state.append_eos && { append_eos: true }),
    ...(state.add_bos && { add_bos: state.add_bos === "yes" }),
  };
}

const NEEDS = {
  gnmt: (state) => given("gnmt_alpha", state.gnmt_alpha),
  pmi: (state) => ({ pmi_context: state.pmi_context }),
  calibrated: (state) => ({ calibration_contexts: state.calibration_contexts.split("\n") }),
};

/** A number that was typed; absent where nothing was. */
const given = (name, text) => (`${text}`.trim() === "" ? {} : { [name]: Number(text) });

/**
 * The body of POST /v1/score for all candidates: with their tokens where they are few, in columns
 * where results would be too many.
 */
export function scoreBody(state) {
  const count = state.candidates.length;
  const isShort = new TextEncoder().encode(state.candidates.join("")).length <= MAX_LISTED_BYTES;
  const listsTokens = count <= MAX_OPEN && isShort && state.boundary !== "marginal";
  return {
    ...common(state),
    candidates: state.candidates,
    ...(state.normalization !== "sum" && { normalization: state.normalization }),
    ...NEEDS[state.normalization]?.(state),
    ...(state.boundary === "marginal" && given("max_expansions", state.max_expansions)),
    ...(Number(state.temperature) !== 1 && given("temperature", state.temperature)),
    ...(listsTokens && { top_logprobs: ALTERNATIVES }),
    ...(count > MAX_RESULTS && { compact: true }),
  };
}

/** The start is pinned, so that what is asked about few is what was said of them among many. */
function pinned(state, { boundary }, indices) {
  return {
    ...common(state),
    candidates: indices.map((index) => state.candidates[index]),
    ...(boundary.policy === "joint" && { start_token: boundary.start_token }),
  };
}

/** The body of POST /v1/score that lists the tokens of a few of the candidates. */
export const tokensBody = (state, answer, indices) => ({
  ...pinned(state, answer, indices),
  top_logprobs: ALTERNATIVES,
});

/** The body of POST /v1/audit for the entropies, which no other route lists; its searches are kept short. */
export const entropiesBody = (state, answer, indices) => ({
  ...pinned(state, answer, indices),
  max_tokens: 1,
  num_beams: 1,
  max_expansions: 1,
});

/**
 * The answer's results by index, whichever shape they came in.
 *
 * @returns {{ranked: object[], failed: object[]}} ranked ones best first
 */
export function resultsOf({ results = [], compact }) {
  if (!compact) {
    const ranked = results.filter((one) => !one.error);
    ranked.sort((one, other) => one.rank - other.rank || one.index - other.index);
    return { ranked, failed: results.filter((one) => one.error) };
  }
  const rows = ({ index = [], ...columns }) =>
    index.map((each, place) => ({
      index: each,
      ...Object.fromEntries(
        Object.entries(columns).map(([name, column]) => [name, column[place] ?? undefined]),
      ),
    }));
  const failed = rows(compact.failed ?? {});
  return {
    ranked: rows(compact.ranked),
    failed: failed.map(({ index, ...error }) => ({ index, error })),
  };
}
