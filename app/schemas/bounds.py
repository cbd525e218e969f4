"""How large the parts of a request may be. One place, so that docs and errors agree.

These bound what is read before anything runs. What the model itself can hold (path length,
vocabulary, queue) is checked against the served model and reported by name.
"""

from __future__ import annotations

MAX_BODY_BYTES = 8 << 20
"""A request's body, unless the operator says otherwise: room for ``MAX_CANDIDATES`` names."""

MAX_TEXT_CHARS = 1_000_000
"""Characters of a context, a candidate or a message."""

MAX_CHAT_CHARS = 1_000_000
"""Characters of all messages of a context together."""

MAX_JOINED_CHARS = 16_000_000
"""Characters of the context that ``joint`` tokenizes again for each text candidate, times their
number: those behind the last word that no candidate can change, or all of them where the tokenizer
is of a kind that is not known to allow that. It takes about six seconds at the bound."""

MAX_TOKEN_IDS = 131_072
"""Token ids of a context or a candidate."""

MAX_TOKEN_ID = 2**31 - 1
"""The largest id that is read where ids are settings; the vocabulary decides what is valid."""

MAX_CANDIDATE_ID = 2**63
"""Magnitude of an id in a candidate: wider, because a bad id there fails the candidate alone."""

MAX_MESSAGES = 1_024
MAX_CONTENT_PARTS = 256
"""Parts that one message of a chat is given in."""

MAX_CANDIDATES = 131_072
MAX_RESULTS = 4_096
"""Candidates that a response reports in full; more are reported in columns."""

MAX_SCORED_TOKENS = 1 << 22
"""Scored tokens of all candidates of a request."""

MAX_PATH_TOKENS = 1 << 24
"""The same with the context before each of them, where all are scored: so many are held."""

MAX_PREFIX_PAIRS = 65_536
"""Entries of all ``prefix_of`` of a response."""

MAX_CHOICES = 2_048
"""Candidates that one search may choose from."""

MAX_CHOICE_IDS = 131_072
"""Tokens of all candidates that one search may choose from: they are held as a trie."""

MAX_MARGINAL_EXPANSIONS = 16_384
DEFAULT_MARGINAL_EXPANSIONS = 256
"""Token paths that the marginal log-probability of one candidate asks the model about."""

MAX_MARGINAL_PATHS = 65_536
"""The same for all candidates of a request together."""

MAX_CALIBRATION_CONTEXTS = 16
MAX_LABELS = 256
MAX_LABEL_CHARS = 1_024
MAX_CHOSEN_IDS = 1_024

MAX_TOP_LOGPROBS = 1_000
"""Most probable tokens listed at one position."""

MAX_TOKEN_ENTRIES = 65_536
"""Tokens listed in one response."""

MAX_TOP_ENTRIES = 16_384
"""Positions x ``top_logprobs`` of one response."""

MAX_TEMPERATURE = 1_000.0
MAX_TIMEOUT_MS = 3_600_000

MAX_NEW_TOKENS = 131_072
MAX_BIASES = 1_000
"""Tokens of a ``logit_bias``; ``allowed_token_ids`` may name more."""

MAX_BEAMS = 512
MAX_GRAMMAR_BEAMS = 64
"""Beams under a regular expression or a JSON schema, each of which needs a mask of its own."""

MAX_EXACT_SEQUENCES = 64
"""Completions of one exact search that are returned with a proof of their order."""

MAX_THRESHOLD_SEQUENCES = 512
"""Completions at or above a probability that one search returns."""

DEFAULT_EXPANSIONS = 4_096
MAX_EXPANSIONS = 100_000
"""Prefixes that one exact search asks the model about."""

MAX_REGEX_CHARS = 8_192
MAX_JSON_SCHEMA_CHARS = 65_536
"""Length of a JSON schema, written without spaces."""

MAX_SCHEMA_NAME_CHARS = 256
"""Of the name that a JSON schema is sent with."""

MAX_LENGTH_PENALTY = 10.0
MAX_STOPS = 16
MAX_STOP_CHARS = 256
MAX_STOP_IDS = 64
MAX_MODEL_NAME_CHARS = 512
MAX_CACHE_SALT_CHARS = 128

MAX_PROMPTS = 2_048
"""Prompts of one completions request."""

MAX_ECHO_BYTES = 16_000_000
"""Text of all echoed prompts of a completions response, each as often as it is shown."""

MAX_COMPLETION_TOKENS = 1 << 22
"""Tokens that the choices of one completions request may generate at most."""

MAX_USER_CHARS = 512
MAX_SEED = 2**63
"""Bounds go through floats on their way to the document: beyond 2^53 only such as this survive."""

MAX_COMPLETION_ENTRIES = 1 << 18
"""Tokens that a completions response lists, times ``logprobs``: an evaluation sends many."""

MAX_AUDIT_CANDIDATES = 16

MAX_AUDIT_TOKENS = 512
"""Scored tokens of all candidates of an audit, each of which its answer takes apart."""

MAX_AUDIT_PAIRS = 32
MAX_AUDIT_NEW_TOKENS = 64
MAX_AUDIT_BEAMS = 16
MAX_AUDIT_EXPANSIONS = 4_096

MAX_REPORTED_DECIMALS = 20

MAX_DIAGNOSIS_TOKENS = 8_192
"""Tokens that a diagnosis feeds to the model for other inputs than the audit's own. What would
exceed them is not tried, and the answer says so."""

MAX_DIAGNOSIS_PAIRS = 64
"""Inputs with two mistakes that a diagnosis feeds to the model, of the same tokens."""

MAX_DIAGNOSIS_ROWS = 128
"""Distributions of other inputs whose whole vocabulary is weighed at many temperatures."""

MAX_DIAGNOSIS_PROMPT = 2_048
"""Tokens of a context that a diagnosis scores as well, at most."""

MAX_QUESTIONS = 400
MAX_OPTIONS = 255
"""Questions of a decisions request, and options of each."""

MAX_PERMUTED_OPTIONS = 4
"""Options of a question that is asked in every order of them: these have 24."""

MAX_DECISION_PATHS = 131_072
"""Options of all its questions, each as often as there are orders in which they are shown."""

MAX_CALIBRATION_LINES = 4_096
"""Labelled questions that one calibration is fitted to."""

MAX_CALIBRATION_OPTIONS = 65_536
"""Options of all of them together."""

MAX_CALIBRATION_PATHS = 262_144
"""The same, each as often as there are orders in which it is shown."""

MAX_CALIBRATIONS = 256
"""Calibrations that a server keeps."""

MAX_CALIBRATION_BYTES = 1 << 20
"""Of the file of one."""

MAX_CURVE_POINTS = 8_192
"""Of an isotonic curve. So many options as above give fewer: a step of the curve is a share of
those that lie on it, and there are not more different shares."""

MAX_TEMPLATE_CHARS = 16_384
"""Of a rerank prompt, and of the instruction in it."""

MAX_DOCUMENTS = 16_384
"""Documents of one rerank request, or pairs of one scoring request."""

MAX_RERANK_BYTES = 8 << 20
"""Text of all prompts of a rerank request, each with its own query and its whole document. It is
checked before anything is tokenized; a token stands for a byte at least, so that no more tokens
are held than ``MAX_PATH_TOKENS``."""

MAX_LABEL_SCORES = 1 << 18
"""Items x labels of one generative scoring request: a number each is gathered and answered."""

MAX_DOCUMENT_FIELDS = 1_000
"""Fields of a document object."""

MAX_RANK_FIELDS = 64
"""Those of them that make up its text."""
