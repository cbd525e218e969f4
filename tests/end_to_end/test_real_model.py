"""The default model behind the real server, against transformers and the float64 reference."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from model_runtime.loading.reference import reference_logprobs
from model_runtime.tokenization.tokenizer import Tokenizer
from model_runtime.types import total
from tests.end_to_end.live_server import LiveServer
from tests.offline import eager_model

pytestmark = [pytest.mark.real_model, pytest.mark.process]

PROMPTS = [
    "The capital of France is",
    "Q: Is the sky blue? A:",
    "def add(a, b): return",
    "Once upon a time, there was a",
]


@pytest.fixture(scope="module")
def exact_model(real_folder: Path) -> PreTrainedModel:
    return eager_model(real_folder, torch.float64)


@pytest.fixture(scope="module")
def plain_model(real_folder: Path) -> PreTrainedModel:
    return eager_model(real_folder)


@pytest.fixture(scope="module")
def tokenizer(real_folder: Path) -> Tokenizer:
    return Tokenizer.load(real_folder)


def exact_sum(model: PreTrainedModel, context: Sequence[int], ids: Sequence[int]) -> float:
    path = [*context, *ids]
    logprobs = reference_logprobs(model, path)
    return math.fsum(float(logprobs[p - 1, path[p]]) for p in range(len(context), len(path)))


def test_the_readmes_first_call(
    real_server: LiveServer, exact_model: PreTrainedModel, tokenizer: Tokenizer
) -> None:
    """Paris beats London beats banana, with the reference's own log-probabilities."""
    texts = [" Paris", " London", " banana"]
    body = {"context": "The capital of France is", "candidates": texts}
    results = real_server.post("/v1/score", body)["results"]
    assert [result["rank"] for result in results] == [1, 2, 3]
    assert math.fsum(result["probability"] for result in results) == pytest.approx(1)
    context = tokenizer.encode("The capital of France is")
    for text, result in zip(texts, results, strict=True):
        want = exact_sum(exact_model, context, tokenizer.encode(text))
        assert result["logprob"] == pytest.approx(want, abs=2e-4)


def test_token_entries_cover_the_candidate_byte_for_byte(real_server: LiveServer) -> None:
    """Entries say where each token stands, and add up to the sum, left to right, to the bit."""
    context, candidate = "Das Wetter ist", " schön 🌧, oder?"
    body = {"context": context, "candidates": [candidate], "token_logprobs": True}
    (result,) = real_server.post("/v1/score", body)["results"]
    whole, tokens = (context + candidate).encode(), result["tokens"]
    assert b"".join(bytes(token["bytes"]) for token in tokens) == candidate.encode()
    assert all(bytes(t["bytes"]) == whole[t["start"] : t["end"]] for t in tokens)
    assert result["logprob"] == total([token["logprob"] for token in tokens])


def test_a_merge_across_the_boundary_moves_the_start(real_server: LiveServer) -> None:
    """A merge moves every candidate's start; pinned, the neighbour changes nothing."""
    body: dict[str, Any] = {"context": "It is ", "candidates": ["Paris"]}
    merged = real_server.post("/v1/score", body)
    assert merged["boundary"]["shift_bytes"] == 1
    alone = real_server.post("/v1/score", {"context": "This is", "candidates": [" yes"]})
    crowd_body = {"context": "This is", "candidates": [" yes", "n't"]}
    crowd = real_server.post("/v1/score", crowd_body)
    start = crowd["boundary"]["start_token"]
    assert start < alone["boundary"]["start_token"]
    pinned = [
        real_server.post(
            "/v1/score", {"context": "This is", "candidates": texts, "start_token": start}
        )["results"][0]["logprob"]
        for texts in ([" yes"], [" yes", "n't"])
    ]
    assert pinned[0] == pinned[1] == crowd["results"][0]["logprob"]


def test_text_that_spells_a_control_token_stays_text(
    real_server: LiveServer, tokenizer: Tokenizer
) -> None:
    """Nobody ends a turn by writing ``<|im_end|>`` into a candidate."""
    body = {"context": "Say", "candidates": [" <|im_end|>"], "token_logprobs": True}
    (result,) = real_server.post("/v1/score", body)["results"]
    control = set(tokenizer.encode("<|im_end|>", parse_special=True))
    assert len(control) == 1 and result["token_count"] > 1
    assert not control & {token["id"] for token in result["tokens"]}


def test_a_crowd_changes_no_bit(real_server: LiveServer) -> None:
    """Scores, distributions and completions are the same alone and among forty others."""
    calls: list[tuple[str, dict[str, Any]]] = []
    for index, prompt in enumerate(PROMPTS * 3):
        candidates = [f" {word} {index}" for word in ("yes", "no", "maybe it is")]
        calls.append(("/v1/score", {"context": prompt, "candidates": candidates}))
        calls.append(("/v1/next_token", {"context": f"{prompt} {index}", "top_k": 3}))
        calls.append(
            ("/v1/decode", {"context": f"{prompt} {index}", "strategy": "greedy", "max_tokens": 4})
        )
    alone = [answer_of(real_server, call) for call in calls]
    shared = real_server.metric("chainrule_shared_batches_total")
    with ThreadPoolExecutor(40) as pool:
        crowd = list(pool.map(lambda call: answer_of(real_server, call), calls))
    assert crowd == alone
    assert real_server.metric("chainrule_shared_batches_total") > shared


def answer_of(server: LiveServer, call: tuple[str, dict[str, Any]]) -> str:
    """The numbers of an answer, without its identity, cost and times."""
    answer = server.post(*call)
    return json.dumps({key: answer.get(key) for key in ("results", "tokens", "sequences")})


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_equals_generate(
    prompt: str, real_server: LiveServer, plain_model: PreTrainedModel, tokenizer: Tokenizer
) -> None:
    """The same tokens as transformers, end token included."""
    body = {"context": prompt, "strategy": "greedy", "max_tokens": 12}
    (sequence,) = real_server.post("/v1/decode", body)["sequences"]
    ids = tokenizer.encode(prompt)
    want = plain_model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)
    assert sequence["token_ids"] == want[0, len(ids) :].tolist()


@pytest.mark.parametrize("prompt", PROMPTS[:2])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_beam_equals_generate(
    prompt: str,
    early_stopping: bool,
    real_server: LiveServer,
    plain_model: PreTrainedModel,
    tokenizer: Tokenizer,
) -> None:
    """The same four sequences with the same scores as transformers."""
    settings = {"num_beams": 4, "num_return_sequences": 4, "early_stopping": early_stopping}
    body = {"context": prompt, "strategy": "beam", "max_tokens": 8, **settings}
    sequences = real_server.post("/v1/decode", body)["sequences"]
    ids = tokenizer.encode(prompt)
    want = plain_model.generate(
        torch.tensor([ids]),
        max_new_tokens=8,
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
        **settings,
    )
    end = tokenizer.eos_token_id
    for sequence, row, score in zip(
        sequences, want.sequences, want.sequences_scores.tolist(), strict=True
    ):
        generated = row[len(ids) :].tolist()
        if end in generated:
            generated = generated[: generated.index(end) + 1]
        assert sequence["token_ids"] == generated
        assert sequence["score"] == pytest.approx(score, abs=1e-4)


def test_a_completion_scores_what_its_ids_score(
    real_server: LiveServer, tokenizer: Tokenizer
) -> None:
    """A decode's total is /v1/score's total of the same ids, to the bit."""
    body = {"context": PROMPTS[3], "strategy": "beam", "num_beams": 3, "max_tokens": 6}
    (sequence,) = real_server.post("/v1/decode", body)["sequences"]
    ids = tokenizer.encode(PROMPTS[3])
    score_body = {"context": ids, "candidates": [sequence["token_ids"]]}
    (result,) = real_server.post("/v1/score", score_body)["results"]
    assert result["logprob"] == sequence["logprob"]


def test_the_distribution_equals_the_reference(
    real_server: LiveServer, exact_model: PreTrainedModel, tokenizer: Tokenizer
) -> None:
    """Top k, chosen labels, entropy and the remaining mass are the model's own."""
    body = {"context": PROMPTS[1], "top_k": 5, "labels": [" yes", " no"], "temperature": 1.0}
    answer = real_server.post("/v1/next_token", body)
    exact = reference_logprobs(exact_model, tokenizer.encode(PROMPTS[1]))[-1]
    top = exact.topk(5)
    assert [token["id"] for token in answer["tokens"]] == top.indices.tolist()
    for token, want in zip(answer["tokens"], top.values.tolist(), strict=True):
        assert token["logprob"] == pytest.approx(want, abs=1e-4)
    assert answer["entropy"] == pytest.approx(float(-(exact.exp() * exact).sum()), abs=1e-4)
    assert answer["remaining_probability"] == pytest.approx(
        1 - float(top.values.exp().sum()), abs=1e-5
    )
    for label, token in zip((" yes", " no"), answer["chosen"], strict=True):
        (label_id,) = tokenizer.encode(label)
        assert token["logprob"] == pytest.approx(float(exact[label_id]), abs=1e-4)
