"""The runner against oracles that nobody here tuned: float64, transformers' loss, enumeration."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, OpenAIGPTConfig

from model_runtime.attention import span_groups as groups
from model_runtime.batching.batch import QueryProgress
from model_runtime.batching.planner import plan
from model_runtime.decoder import operations
from model_runtime.errors import UnsupportedModel
from model_runtime.kernels import linear
from model_runtime.kernels.linear import check_products
from model_runtime.kv_cache.prefix_cache import PrefixCache
from model_runtime.loading.reference import reference_logprobs
from model_runtime.loading.supported_models import check_supported
from model_runtime.logprobs import reduce as logprobs
from model_runtime.runner import native_runner
from model_runtime.runner.model_runner import ModelRunner
from model_runtime.types import LogprobQuery, total
from tests.conftest import TinyFolder
from tests.offline import Offline, eager_model
from tests.tiny_models import TINY_KINDS, TINY_VOCAB, tiny_model

SIXTEEN_TOKENS = 2e-4
"""Largest difference from float64 that a 16-token sum may have in float32, in nats."""


def random_path(rng: random.Random, length: int, vocab: int = TINY_VOCAB) -> tuple[int, ...]:
    return tuple(rng.randrange(vocab) for _ in range(length))


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_scores_equal_the_float64_reference(kind: str, tiny_folder: TinyFolder) -> None:
    """Contexts on and off block multiples, merged and cut into chunks, equal plain float64."""
    rng = random.Random(kind)
    offline, oracle = Offline(tiny_folder(kind)), eager_model(tiny_folder(kind), torch.float64)
    longest = 110 if kind == "gpt2" else 300
    trunk = random_path(rng, longest)
    queries = [
        LogprobQuery(trunk[:cut] + random_path(rng, 16), cut, targets=(3,), summary=True)
        for cut in (1, 7, 100, longest // 2, longest - 44, longest)
    ]
    worst = 0.0
    for budget in (4096, 37):
        for query, result in zip(queries, offline.answer(queries, budget), strict=True):
            exact = reference_logprobs(oracle, query.tokens)
            asked = range(query.score_from, len(query.tokens))
            want = math.fsum(float(exact[p - 1, query.tokens[p]]) for p in asked)
            worst = max(worst, abs(total(result.logprobs) - want))
            assert result.target_logprobs[0] == pytest.approx(float(exact[-1, 3]), abs=1e-4)
            entropy = -(exact.exp() * exact).sum(-1)[query.score_from - 1 :]
            assert result.entropies == pytest.approx(entropy.tolist(), abs=1e-4)
            ranks = [int((exact[p - 1] > exact[p - 1, query.tokens[p]]).sum()) + 1 for p in asked]
            assert list(result.ranks) == ranks
    print(f"{kind}: largest difference of a 16-token sum {worst:.1e}")  # noqa: T201
    assert worst < SIXTEEN_TOKENS


@pytest.mark.real_model
def test_the_real_model_equals_the_float64_reference(
    real_model: Offline, real_folder: Path
) -> None:
    """Sixteen-token sums of the default model stay within 2e-4 of float64."""
    rng = random.Random(0)
    oracle = eager_model(real_folder, torch.float64)
    context = random_path(rng, 150, 49_152)
    queries = [
        LogprobQuery(context[:cut] + random_path(rng, 16, 49_152), cut) for cut in (3, 128, 150)
    ]
    worst = 0.0
    for query, result in zip(queries, real_model.answer(queries), strict=True):
        exact = reference_logprobs(oracle, query.tokens)
        asked = range(query.score_from, len(query.tokens))
        want = math.fsum(float(exact[p - 1, query.tokens[p]]) for p in asked)
        worst = max(worst, abs(total(result.logprobs) - want))
    print(f"real model: largest difference of a 16-token sum {worst:.1e}")  # noqa: T201
    assert worst < SIXTEEN_TOKENS


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_the_whole_vocabulary_sums_to_one(kind: str, tiny_folder: TinyFolder) -> None:
    """Softmax runs over every head row, and every one of them can be asked for."""
    offline = Offline(tiny_folder(kind))
    ids = tuple(range(TINY_VOCAB))
    query = LogprobQuery((5, 6, 7), 3, targets=ids, top_k=TINY_VOCAB)
    (result,) = offline.answer([query])
    assert math.fsum(map(math.exp, result.target_logprobs)) == pytest.approx(1, abs=1e-5)
    assert sorted(token.id for token in result.top[0]) == list(ids)
    assert dict(result.top[0]) == dict(zip(ids, result.target_logprobs, strict=True))


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_the_chain_rule_holds(kind: str, tiny_folder: TinyFolder) -> None:
    """log P(ab | x) = log P(a | x) + log P(b | xa), to the bit, wherever the cut is."""
    rng, offline = random.Random(3), Offline(tiny_folder(kind))
    path = random_path(rng, 100)
    (whole,) = offline.answer([LogprobQuery(path, 60)])
    for cut in (61, 70, 99):
        first, second = offline.answer([LogprobQuery(path[:cut], 60), LogprobQuery(path, cut)])
        assert first.logprobs + second.logprobs == whole.logprobs


def test_all_sequences_of_length_three_sum_to_one(tiny_vocabulary_folder: Path) -> None:
    """Over a tiny vocabulary the probabilities of all 512 continuations add up to 1."""
    offline = Offline(tiny_vocabulary_folder)
    queries = [
        LogprobQuery((1, 2, *candidate), 2) for candidate in itertools.product(range(8), repeat=3)
    ]
    totals = [total(result.logprobs) for result in offline.answer(queries)]
    assert math.fsum(map(math.exp, totals)) == pytest.approx(1, abs=1e-5)
    assert len(offline.batches[0].token_ids) == 2 + 8 + 64


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_mean_negative_logprob_is_the_training_loss(kind: str, tiny_folder: TinyFolder) -> None:
    """The mean over all tokens but the first equals the loss transformers computes."""
    path = random_path(random.Random(5), 90)
    (result,) = Offline(tiny_folder(kind)).answer([LogprobQuery(path, 1)])
    ids = torch.tensor([path])
    with torch.inference_mode():
        loss = eager_model(tiny_folder(kind))(input_ids=ids, labels=ids).loss
    assert -total(result.logprobs) / 89 == pytest.approx(float(loss), abs=1e-5)


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("logit_scale", 0.5, "logit_scale"),
        ("num_local_experts", 8, "experts"),
        ("rope_parameters", {"rope_type": "longrope"}, "longrope"),
        ("layer_types", ["full_attention", "linear_attention"], "linear_attention"),
    ],
)
def test_an_unsupported_architecture_is_refused_by_name(
    setting: str, value: object, reason: str
) -> None:
    """What would be silently wrong, or depend on neighbours, is not served."""
    model = tiny_model("llama")
    setattr(model.config, setting, value)
    with pytest.raises(UnsupportedModel, match=f"LlamaForCausalLM.*{reason}"):
        check_supported(model)


@pytest.mark.parametrize("kernels", ["auto", "torch"])
def test_a_forward_tells_how_it_gets_on(
    kernels: str, tiny_folder: TinyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each layer and each tile of the head is reported, so that a slow forward is no stuck one."""
    monkeypatch.setattr(
        operations, "WORK_A_CALL", 1
    )  # the native layers of a small model go at once
    offline, reports = Offline(tiny_folder("llama"), kernels=kernels), []
    offline.runner.report_to(lambda: reports.append(len(reports)))
    offline.answer([LogprobQuery(tuple(range(40)), 1)])
    assert len(reports) >= 3 + 1  # three layers


def test_a_model_with_attention_of_its_own_is_refused() -> None:
    """OpenAI's first GPT ignores the interface; its first forward would tell as well."""
    config = OpenAIGPTConfig(vocab_size=64, n_positions=32, n_embd=32, n_layer=2, n_head=2)
    model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(UnsupportedModel, match="attention"):
        ModelRunner(model, 1 << 20)
    model._supports_attention_backend = True
    runner = ModelRunner(model, 1 << 20)
    batch = plan([QueryProgress(LogprobQuery((1, 2, 3), 1), 1)], PrefixCache(20), 4096)
    with pytest.raises(UnsupportedModel, match="attention"):
        runner.run(batch)


def test_bfloat16_is_refused_where_the_cpu_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the setting, instead of a kernel's failure."""
    monkeypatch.setattr(linear._mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    with pytest.raises(UnsupportedModel, match="bfloat16"):
        check_products(torch.device("cpu"), torch.bfloat16)


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_keys_gathered_in_parts_change_no_bit(
    kind: str, tiny_folder: TinyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spans that are too many for one call of the kernel are cut into several."""
    rng = random.Random(kind)
    queries = [LogprobQuery(random_path(rng, 200), 190) for _ in range(6)]
    want = Offline(tiny_folder(kind), kernels="torch").answer(queries)
    monkeypatch.setattr(groups, "GATHERED_KEYS", 1)
    assert Offline(tiny_folder(kind), kernels="torch").answer(queries) == want


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_small_tiles_of_the_head_change_no_bit(
    kind: str, tiny_folder: TinyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows over several tiles, and more ids of one row than a tile has rows."""
    path = random_path(random.Random(kind), 60)
    queries = [LogprobQuery(path, 30, tuple(range(100)), 5, True, temperatures=(0.5,))]
    want = Offline(tiny_folder(kind)).answer(queries)
    monkeypatch.setattr(logprobs, "_TILE_BYTES", 8 * 4 * TINY_VOCAB)
    monkeypatch.setattr(native_runner, "NATIVE_TILE_BYTES", 8 * 4 * TINY_VOCAB)
    assert Offline(tiny_folder(kind)).answer(queries) == want
