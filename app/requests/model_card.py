"""What /v1/models says of a model."""

from __future__ import annotations

from app.requests.limits import Limits
from app.schemas.bounds import MAX_CHOICES
from app.schemas.models import BOUNDS, LimitsCard, ModelCard, NumericError, RerankCard
from model_runtime import ModelInfo, grammar_installed


def model_card(info: ModelInfo, limits: Limits, rerank: RerankCard | None = None) -> ModelCard:
    """The served model, with the bounds that requests to it must keep, and its own way to rank."""
    return ModelCard(
        id=info.name,
        created=info.created,
        fingerprint=info.fingerprint,
        numeric_error=_numeric_error(info),
        architecture=info.architecture,
        parameters=info.parameters,
        dtype=info.dtype,
        device=info.device,
        kernels=info.kernels,
        kernels_reason=info.kernels_reason,
        batch_invariant=info.batch_invariant,
        vocab_size=info.vocab_size,
        max_model_len=info.max_model_len,
        bos_token_id=info.bos_token_id,
        end_token_ids=list(info.end_token_ids),
        warnings=list(info.warnings),
        rerank=rerank,
        limits=_limits_card(limits),
    )


def _numeric_error(info: ModelInfo) -> NumericError | None:
    if info.numeric_error is None:
        return None
    maximum, rms = info.numeric_error
    return NumericError(maximum=maximum, rms=rms)


def _limits_card(limits: Limits) -> LimitsCard:
    own = {
        "max_body_bytes": limits.max_body_bytes,
        "max_candidates": limits.max_candidates,
        "max_choices": min(MAX_CHOICES, limits.max_candidates),
        "max_top_logprobs": limits.max_top_logprobs,
    }
    return LimitsCard(**{**BOUNDS, **own}, grammar=grammar_installed())
