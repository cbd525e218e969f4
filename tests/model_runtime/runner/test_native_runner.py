"""The native runner: against float64, and with equal bits on every instruction set."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from model_runtime.attention.interface import ATTENTION_NAME
from model_runtime.decoder.description import NotDescribed
from model_runtime.loading.reference import reference_logprobs
from model_runtime.native import library
from model_runtime.native.library import InstructionSet
from model_runtime.runner.native_runner import NativeModelRunner
from model_runtime.types import LogprobQuery, LogprobResult
from tests.conftest import TinyFolder
from tests.offline import Offline, eager_model
from tests.tiny_models import TINY_KINDS, TINY_VOCAB

ROOT = Path(__file__).parents[3]
DESCRIBED = [kind for kind in TINY_KINDS if kind != "smollm"]
"""All but one, whose heads are too narrow."""


@pytest.fixture(autouse=True)
def built() -> None:
    if not library.available():
        pytest.skip("the native kernels were not built")


def queries(kind: str) -> list[LogprobQuery]:
    """Candidates behind a context across key blocks, a top k, an entropy, targets."""
    rng = random.Random(kind)
    longest = 128 if kind == "gpt2" else 200
    context = tuple(rng.randrange(TINY_VOCAB - 20) for _ in range(longest - 20))
    tails = [tuple(rng.randrange(TINY_VOCAB - 20) for _ in range(n)) for n in (1, 7, 20)]
    scored = [LogprobQuery(context + tail, len(context) - 3, ()) for tail in tails]
    last = LogprobQuery(
        context, len(context), tuple(range(9)), top_k=5, summary=True, temperatures=(0.5, 3.0)
    )
    return [*scored, last]


def facts(answers: Sequence[LogprobResult]) -> list[list[Sequence[float]]]:
    """Every number that is no rank or id."""
    return [[a.logprobs, a.target_logprobs, a.entropies, a.log_partitions] for a in answers]


def native(folder: Path) -> Offline:
    offline = Offline(folder, kernels="native")
    assert isinstance(offline.runner, NativeModelRunner)
    return offline


@pytest.mark.parametrize("kind", DESCRIBED)
def test_every_kind_agrees_with_float64(kind: str, tiny_folder: TinyFolder) -> None:
    """At each token of paths that cross key blocks and windows."""
    asked = queries(kind)
    answers = native(tiny_folder(kind)).answer(asked)
    oracle = eager_model(tiny_folder(kind), torch.float64)
    for query, answer in zip(asked[:3], answers, strict=False):
        rows = reference_logprobs(oracle, query.tokens)
        exact = [
            float(rows[t - 1, query.tokens[t]]) for t in range(query.score_from, len(query.tokens))
        ]
        assert answer.logprobs == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize("kind", ["gemma2", "gpt_neox", "llama", "olmo2"])
def test_bfloat16_is_as_close_to_float64_as_with_torchs_kernels(
    kind: str, tiny_folder: TinyFolder
) -> None:
    """The products are the same; what is around them is in float32 on both sides."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor has no products in bfloat16")
    asked, folder = queries(kind)[:3], tiny_folder(kind)
    oracle = eager_model(folder, torch.float64)
    off = {}
    for kernels in ("native", "torch"):
        offline = Offline(folder, dtype=torch.bfloat16, kernels=kernels)
        assert isinstance(offline.runner, NativeModelRunner) == (kernels == "native")
        answers = offline.answer(asked)
        off[kernels] = [
            abs(found - float(reference_logprobs(oracle, query.tokens)[t - 1, query.tokens[t]]))
            for query, answer in zip(asked, answers, strict=True)
            for t, found in enumerate(answer.logprobs, query.score_from)
        ]
    assert 0 < sum(off["native"]) <= 2 * sum(off["torch"])


@pytest.mark.parametrize("kind", DESCRIBED)
def test_bits_are_the_same_on_every_instruction_set(
    kind: str, tiny_folder: TinyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log-probs, ranks, top k and entropies; with one thread and two."""
    found: list[Sequence[LogprobResult]] = []
    best = library.best_instruction_set()
    for instruction_set in InstructionSet:
        if instruction_set > best:
            continue
        monkeypatch.setattr(library, "best_instruction_set", lambda it=instruction_set: it)
        offline = native(tiny_folder(kind))
        library.use_threads(1 + instruction_set % 2)
        found.append(offline.answer(queries(kind)))
    assert all(other == found[0] for other in found[1:])


@pytest.mark.real_model
def test_the_default_model_has_the_same_bits_with_avx2(
    real_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty layers deep: candidates behind a context across key blocks, and a next token."""
    best = library.best_instruction_set()
    if best < InstructionSet.AVX512:
        pytest.skip("this processor has no wider instruction set to compare with")
    rng = random.Random(0)
    context = tuple(rng.randrange(49_152) for _ in range(150))
    tails = [tuple(rng.randrange(49_152) for _ in range(n)) for n in (1, 8, 30)]
    asked = [LogprobQuery(context + tail, 140, ()) for tail in tails]
    asked.append(LogprobQuery(context, 150, (5, 7), top_k=9, summary=True, temperatures=(0.7,)))
    want = native(real_folder).answer(asked)
    monkeypatch.setattr(library, "best_instruction_set", lambda: InstructionSet.AVX2)
    assert native(real_folder).answer(asked) == want


def test_torchs_own_kernels_change_no_bit(tiny_folder: TinyFolder) -> None:
    """Another process, whose torch, MKL and oneDNN are held to what every processor has."""
    kinds = ["llama", "gemma2", "gpt_neox"]
    limits = {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    }
    program = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from tests.model_runtime.runner.test_native_runner import facts, native, queries\n"
        "for kind, folder in zip(sys.argv[1::2], sys.argv[2::2]):\n"
        "    answers = native(Path(folder)).answer(queries(kind))\n"
        "    print(json.dumps(facts(answers)))\n"
    )
    arguments = [part for kind in kinds for part in (kind, str(tiny_folder(kind)))]
    other = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        env={**os.environ, **limits},
        capture_output=True,
        text=True,
        check=True,
    )
    for kind, line in zip(kinds, other.stdout.splitlines(), strict=True):
        answers = native(tiny_folder(kind)).answer(queries(kind))
        assert json.loads(line) == json.loads(json.dumps(facts(answers)))


def test_the_models_own_weights_are_let_go_of(tiny_folder: TinyFolder) -> None:
    """One copy of a layer's weights stays."""
    model = AutoModelForCausalLM.from_pretrained(
        tiny_folder("llama"), attn_implementation=ATTENTION_NAME
    )
    NativeModelRunner(model.eval(), 1 << 20)
    layers = model.base_model.layers.parameters()
    assert sum(weight.numel() for weight in layers) == 0


def test_an_unknown_model_stays_as_it_is(tiny_folder: TinyFolder) -> None:
    """So that torch's kernels can take it over."""
    model = AutoModelForCausalLM.from_pretrained(
        tiny_folder("smollm"), attn_implementation=ATTENTION_NAME
    )
    before = [weight.clone() for weight in model.parameters()]
    with pytest.raises(NotDescribed, match="8 columns"):
        NativeModelRunner(model.eval(), 1 << 20)
    assert all(map(torch.equal, before, model.parameters()))
