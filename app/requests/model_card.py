"""What /v1/models says of a model."""

from __future__ import annotations

from app.requests.limits import Limits
from app.schemas import bounds
from app.schemas.models import LimitsCard, ModelCard, NumericError
from model_runtime import ModelInfo, grammar_installed


def model_card(info: ModelInfo, limits: Limits) -> ModelCard:
    """The served model, with the bounds that requests to it must keep."""
    return ModelCard(
        id=info.name,
        created=info.created,
        fingerprint=info.fingerprint,
        numeric_error=_numeric_error(info),
        architecture=info.architecture,
        parameters=info.parameters,
        dtype=info.dtype,
        device=info.device,
        batch_invariant=info.batch_invariant,
        vocab_size=info.vocab_size,
        max_model_len=info.max_model_len,
        bos_token_id=info.bos_token_id,
        end_token_ids=list(info.end_token_ids),
        warnings=list(info.warnings),
        limits=_limits_card(limits),
    )


def _numeric_error(info: ModelInfo) -> NumericError | None:
    if info.numeric_error is None:
        return None
    maximum, rms = info.numeric_error
    return NumericError(maximum=maximum, rms=rms)


def _limits_card(limits: Limits) -> LimitsCard:
    return LimitsCard(
        max_body_bytes=limits.max_body_bytes,
        max_candidates=limits.max_candidates,
        max_results=bounds.MAX_RESULTS,
        max_choices=min(bounds.MAX_CHOICES, limits.max_candidates),
        max_scored_tokens=bounds.MAX_SCORED_TOKENS,
        max_path_tokens=bounds.MAX_PATH_TOKENS,
        max_text_chars=bounds.MAX_TEXT_CHARS,
        max_joined_chars=bounds.MAX_JOINED_CHARS,
        max_token_ids=bounds.MAX_TOKEN_IDS,
        max_top_logprobs=limits.max_top_logprobs,
        max_token_entries=bounds.MAX_TOKEN_ENTRIES,
        max_top_entries=bounds.MAX_TOP_ENTRIES,
        max_labels=bounds.MAX_LABELS,
        max_calibration_contexts=bounds.MAX_CALIBRATION_CONTEXTS,
        max_marginal_expansions=bounds.MAX_MARGINAL_EXPANSIONS,
        max_marginal_paths=bounds.MAX_MARGINAL_PATHS,
        max_audit_candidates=bounds.MAX_AUDIT_CANDIDATES,
        max_audit_tokens=bounds.MAX_AUDIT_TOKENS,
        max_beams=bounds.MAX_BEAMS,
        max_expansions=bounds.MAX_EXPANSIONS,
        max_exact_sequences=bounds.MAX_BEST,
        max_threshold_sequences=bounds.MAX_ABOVE,
        max_regex_chars=bounds.MAX_REGEX_CHARS,
        max_json_schema_chars=bounds.MAX_JSON_SCHEMA_CHARS,
        max_prompts=bounds.MAX_PROMPTS,
        max_completion_tokens=bounds.MAX_COMPLETION_TOKENS,
        max_completion_entries=bounds.MAX_COMPLETION_ENTRIES,
        max_echo_bytes=bounds.MAX_ECHO_BYTES,
        max_documents=bounds.MAX_DOCUMENTS,
        max_rerank_bytes=bounds.MAX_RERANK_BYTES,
        max_label_scores=bounds.MAX_LABEL_SCORES,
        max_questions=bounds.MAX_QUESTIONS,
        max_options=bounds.MAX_OPTIONS,
        grammar=grammar_installed(),
    )
