"""The plain runner, on architectures that path attention refuses, against float64."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import cast

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertLMHeadModel,
    BloomConfig,
    CohereConfig,
    FalconConfig,
    GptOssConfig,
    LlamaConfig,
    MambaConfig,
    MixtralConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    RwkvConfig,
)

from model_runtime.batching.batch import Batch, QueryProgress, results_from_output
from model_runtime.config import EngineConfig
from model_runtime.decoding.greedy import GreedySearch
from model_runtime.decoding.limits import DecodingLimits
from model_runtime.engine import Engine
from model_runtime.errors import OutOfMemory, UnsupportedModel
from model_runtime.loading.reference import reference_logprobs
from model_runtime.runner.unbatched_runner import UnbatchedModelRunner
from model_runtime.scheduling.forward import ForwardPipeline
from model_runtime.tokenization.tokenizer import Tokenizer
from model_runtime.types import LogprobQuery, LogprobResult, ModelInfo
from tests.model_runtime.on_loop import on_loop

VOCAB, LONGEST = 96, 256

_OWN_NAMES = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": None}
_COMMON = _OWN_NAMES | {
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": LONGEST,
}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 20}
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 40,
}

SHAPES: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**_COMMON),
    "cohere, scaled logits": CohereConfig(**_COMMON, logit_scale=0.25),
    "mixtral, experts": MixtralConfig(**_COMMON, **_EXPERTS),
    "gpt-oss, experts and sinks": GptOssConfig(**_COMMON, **_EXPERTS, head_dim=8),
    "phi3, longrope": Phi3Config(
        **_COMMON, original_max_position_embeddings=40, rope_parameters=_LONGROPE
    ),
    "bloom, ALiBi": BloomConfig(**_OWN_NAMES, n_head=4),
    "falcon, ALiBi": FalconConfig(**_OWN_NAMES, num_attention_heads=4, alibi=True),
    "opt, positions of its own": OPTConfig(
        **_OWN_NAMES, ffn_dim=48, num_attention_heads=4, word_embed_proj_dim=32
    ),
    "mamba, state space": MambaConfig(**_OWN_NAMES, state_size=8),
    "rwkv, recurrence": RwkvConfig(**_OWN_NAMES, attention_hidden_size=32, context_length=LONGEST),
}

FEATURES = {"targets": (3, 90), "top_k": 4, "summary": True, "temperatures": (0.5,)}


def randomized(model: PreTrainedModel) -> PreTrainedModel:
    """The model with weights that make its distributions far from uniform."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(weight + 0.1 * noise if weight.dim() == 1 else 0.3 * noise)
    return model.eval().requires_grad_(False)


@cache
def model_of(shape: str) -> PreTrainedModel:
    """The float32 model of a shape."""
    return randomized(AutoModelForCausalLM.from_config(SHAPES[shape], attn_implementation="eager"))


@cache
def runner_of(shape: str) -> UnbatchedModelRunner:
    return UnbatchedModelRunner(model_of(shape), LONGEST)


def exact(shape: str, tokens: Sequence[int]) -> torch.Tensor:
    """[len(tokens), vocab] in float64."""
    model = copy.deepcopy(model_of(shape)).to(torch.float64)
    model.set_experts_implementation("eager")  # the grouped product has no float64
    return reference_logprobs(model, tokens)


def answer(runner: UnbatchedModelRunner, queries: Sequence[LogprobQuery]) -> list[LogprobResult]:
    """All results, in as many batches as it takes; each batch holds the first open query."""
    results = []
    for index, query in enumerate(queries):
        batch = runner.plan([QueryProgress(q, q.score_from) for q in queries[index:]], budget=1)
        (result,) = results_from_output(batch, runner.run(batch))
        assert batch.query_slices[0].query == query and batch.query_slices[0].complete
        assert isinstance(result, LogprobResult)
        results.append(result)
    return results


def random_path(seed: int, length: int) -> tuple[int, ...]:
    rng = random.Random(seed)
    return tuple(rng.randrange(VOCAB) for _ in range(length))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_answer_equals_the_float64_reference(shape: str) -> None:
    """Log-probs, ranks, targets, top k, entropy and log-partition are those of the oracle."""
    tokens, start = random_path(1, 70), 50
    (result,) = answer(runner_of(shape), [LogprobQuery(tokens, start, **FEATURES)])
    rows = exact(shape, tokens)[start - 1 :]
    scored = [float(row[token]) for row, token in zip(rows, tokens[start:], strict=False)]
    assert result.logprobs == pytest.approx(scored, abs=1e-4)
    assert list(result.ranks) == [
        1 + int((row > row[token]).sum()) for row, token in zip(rows, tokens[start:], strict=False)
    ]
    assert result.target_logprobs == pytest.approx([float(rows[-1, t]) for t in (3, 90)], abs=1e-4)
    assert result.entropies == pytest.approx((-(rows.exp() * rows).sum(-1)).tolist(), abs=1e-4)
    for row, top in zip(rows, result.top, strict=True):
        assert [token.id for token in top] == row.topk(4).indices.tolist()
    tempered = float(((rows[-1] - rows[-1].max()) / 0.5).logsumexp(0))
    assert result.log_partitions == pytest.approx((tempered,), abs=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_bits_do_not_depend_on_company(shape: str) -> None:
    """A path scores the same alone, behind others that share its tokens, and asked again."""
    runner = runner_of(shape)
    trunk = random_path(2, 60)
    queries = [LogprobQuery(trunk[:cut] + random_path(cut, 9), cut) for cut in (1, 17, 60)]
    alone = [answer(runner, [query])[0] for query in queries]
    assert answer(runner, queries[::-1] + queries) == alone[::-1] + alone


def test_a_path_is_fed_whole_whatever_the_budget_is() -> None:
    """One path a batch; work that follows waits, and rows answered before are not repeated."""
    runner = runner_of("llama")
    query = LogprobQuery(random_path(3, 40), 10, (5,))
    batch = runner.plan([QueryProgress(query, 30), QueryProgress(query, 10)], budget=3)
    (rest,) = results_from_output(batch, runner.run(batch))
    (whole,) = answer(runner, [query])
    assert tuple(batch.token_ids) == query.tokens
    assert len(batch.query_slices) == 1 and batch.query_slices[0].work_index == 0
    assert isinstance(rest, LogprobResult)
    assert rest.logprobs == pytest.approx(whole.logprobs[20:], abs=1e-5)
    assert rest.target_logprobs == pytest.approx(whole.target_logprobs, abs=1e-5)


def test_the_longest_path_fits() -> None:
    """The null cache has room for exactly the paths that the engine admits."""
    runner = runner_of("llama")
    (result,) = answer(runner, [LogprobQuery(random_path(4, LONGEST), LONGEST, ())])
    assert result == LogprobResult()
    assert (runner.cache.capacity, runner.cache.used) == (LONGEST, 0)


def test_a_batch_of_another_planner_is_refused() -> None:
    """Rows of several paths would be read as one sequence."""
    runner = runner_of("llama")
    batch = runner.plan([QueryProgress(LogprobQuery((1, 2, 3), 1), 1)], budget=9)
    with pytest.raises(RuntimeError, match="one whole path"):
        runner.run(replace(batch, positions=[0, 0]))


def test_a_model_that_sees_later_tokens_is_refused() -> None:
    """An encoder's rows would know the token that they are to predict."""
    config = BertConfig(
        **_OWN_NAMES, intermediate_size=48, num_attention_heads=4, is_decoder=False,
        max_position_embeddings=LONGEST, attn_implementation="eager",
    )  # fmt: skip
    model = randomized(BertLMHeadModel(config))
    with pytest.raises(UnsupportedModel, match="BertLMHeadModel is not causal"):
        UnbatchedModelRunner(model, LONGEST)


def test_a_model_that_cannot_run_is_refused_in_one_line() -> None:
    """What the first forward raises is a reason, not a traceback."""
    model = copy.deepcopy(model_of("opt, positions of its own"))
    with pytest.raises(UnsupportedModel, match="OPTForCausalLM cannot run a plain forward") as e:
        model.model.decoder.embed_positions = torch.nn.Identity()
        UnbatchedModelRunner(model, LONGEST)
    assert "\n" not in str(e.value)


def test_too_little_memory_has_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batcher knows out of memory by its name."""
    runner = UnbatchedModelRunner(model_of("llama"), LONGEST)
    batch = runner.plan([QueryProgress(LogprobQuery((1, 2, 3), 1), 1)], budget=9)

    def fail(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("no memory")

    monkeypatch.setattr(runner, "_logits", fail)
    with pytest.raises(OutOfMemory, match="a path of 2 tokens"):
        runner.run(batch)


@on_loop
async def test_an_engine_scores_and_decodes_with_it() -> None:
    """Scheduler and searches need nothing else of a runner; a decode costs its whole path."""
    runner = runner_of("mamba, state space")
    info = ModelInfo("m", "f", "Mamba", "float32", "cpu", VOCAB, LONGEST, None, (), 1)

    def run(batch: Batch) -> Sequence[object]:
        return results_from_output(batch, runner.run(batch))

    forward = ForwardPipeline(runner.plan, run, lambda _batch: None)
    engine = Engine(
        EngineConfig(max_batch_tokens=32), info, cast(Tokenizer, None), forward, runner.cache
    )
    prompt = random_path(5, 50)
    await engine.start()
    try:
        limits = DecodingLimits(max_tokens=4)
        decoded = await engine.decode(GreedySearch(prompt, limits, vocab_size=VOCAB))
        (hypothesis,) = decoded.value.hypotheses
        path = prompt + hypothesis.token_ids
        scored = await engine.score([LogprobQuery(path, 50), LogprobQuery(path[:53], 50)])
    finally:
        await engine.stop(drain_s=5)
    rows = exact("mamba, state space", path)[49:53]
    assert list(hypothesis.token_ids) == rows.argmax(-1).tolist()
    (whole, part) = scored.value
    assert isinstance(whole, LogprobResult) and isinstance(part, LogprobResult)
    assert whole.logprobs == pytest.approx(rows.max(-1).values.tolist(), abs=1e-4)
    assert part.logprobs == pytest.approx(whole.logprobs[:3], abs=1e-5)
    assert decoded.computed_tokens == 50 + 51 + 52 + 53
    assert math.isfinite(sum(whole.logprobs))
