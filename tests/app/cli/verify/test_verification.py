"""Whether a receipt holds: what was computed again, what differs, what cannot be compared."""

from __future__ import annotations

import math
from typing import Any

import pytest

from app.cli.verify.recompute import CANDIDATES_AT_ONCE
from app.cli.verify.report import Verification
from app.cli.verify.verification import verify
from app.client import ClientError, FingerprintMismatch, RequestRefused
from app.schemas.receipt import Receipt, ReceiptCandidate
from model_runtime import ChainruleError, Engine, EngineConfig, ForwardFailed, total
from tests.app.fake_engine import LAW, FakeEngine
from tests.app.in_process import client_over
from tests.conftest import TinyFolder

ERROR = 1e-3
CANDIDATES = [" yes", " no", " yes.\n", "n't", "a"]


def receipt_of(engine: Any = None, **fields: Any) -> Receipt:
    """A receipt as a server gives it."""
    asked = {"context": "it is", "candidates": CANDIDATES, **fields}
    with client_over(engine or FakeEngine(numeric_error=(ERROR, ERROR))) as client:
        receipt = client.score(**asked, receipt=True).receipt
    assert receipt is not None
    return receipt


def verified(receipt: Receipt, engine: Any = None, **options: Any) -> Verification:
    """What another server finds."""
    with client_over(engine or FakeEngine(numeric_error=(ERROR, ERROR))) as client:
        return verify(client, receipt, **options)


def with_candidate(receipt: Receipt, place: int, **update: Any) -> Receipt:
    """The receipt with something of a candidate changed."""
    candidates = list(receipt.candidates)
    candidates[place] = candidates[place].model_copy(update=update)
    return receipt.model_copy(update={"candidates": candidates})


def moved(one: ReceiptCandidate, place: int, by: float) -> dict[str, Any]:
    """A log-probability that is another one, its sum and score made to follow."""
    logprobs = list(one.logprobs)
    logprobs[place] += by
    return {"logprobs": logprobs, "logprob": total(logprobs), "score": total(logprobs)}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"append_eos": True, "normalization": "mean"},
        {"normalization": "per_char"},
        {"normalization": "per_byte", "append_eos": True},
        {"normalization": "gnmt", "gnmt_alpha": 0.9},
        {"normalization": "pmi", "pmi_context": "a", "append_eos": True},
        {"normalization": "calibrated", "calibration_contexts": ["a", "b", "it"]},
        {"candidates": ["", " yes", [10**6]]},
        {"candidates": [" yes", "x", "y", "z"], "top_n": 1, "compact": True},
        {"context": [{"role": "user", "content": "it is"}]},
        {"context": "", "prefix_token_id": 97},
    ],
)
def test_what_a_server_gives_holds(fields: dict[str, Any]) -> None:
    """With every setting, from the ids alone."""
    receipt = receipt_of(**fields)
    found = verified(receipt)
    assert (found.verdict, found.findings, found.exit_status) == ("holds", [], 0)
    assert found.logprobs == sum(
        len(one.logprobs) * (1 + len(one.baselines)) for one in receipt.candidates
    )
    assert found.largest_difference == 0.0
    assert found.left_out == receipt.left_out


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3", "gpt2"])
def test_a_real_model_holds_however_it_is_batched(kind: str, tiny_folder: TinyFolder) -> None:
    """In small batches and a small cache as well: scores depend on their own path alone."""
    folder = str(tiny_folder(kind))
    fields = {"context": "what is the", "candidates": [" a b", " the end", "c", " ab", "b a c d"]}
    fields |= {"append_eos": True, "normalization": "pmi", "pmi_context": "the"}
    receipt = receipt_of(Engine.load(EngineConfig(model=folder)), **fields)
    small = EngineConfig(model=folder, max_batch_tokens=16, kv_cache_bytes=1 << 17)
    assert verified(receipt, Engine.load(small)).verdict == "holds"


@pytest.mark.parametrize("by", [math.ulp(1.0), ERROR, 5 * ERROR])
def test_a_tampered_log_probability_differs(by: float) -> None:
    """By how much, in how many places, and whether rounding explains it."""
    receipt = receipt_of()
    tampered = with_candidate(receipt, 2, **moved(receipt.candidates[2], 1, by))
    found = verified(tampered)
    assert (found.verdict, found.exit_status) == ("differs", 3)
    assert found.largest_difference == pytest.approx(by)
    assert found.within_numeric_error is (by <= 2 * ERROR)
    assert ("within" in found.reason) is (by <= 2 * ERROR)
    (finding,) = found.findings
    assert (finding.index, finding.recomputed) == (2, receipt.candidates[2].logprob)
    assert finding.problem == f"differs in 1 of {len(receipt.candidates[2].logprobs)} " + (
        "log-probabilities"
    )


def test_a_tampered_baseline_differs() -> None:
    """It is a scored path like the others."""
    receipt = receipt_of(normalization="pmi", pmi_context="a")
    one = receipt.candidates[0]
    baseline = one.baselines[0]
    update = {"logprobs": [-1.0] * len(baseline.logprobs), "logprob": -len(baseline.logprobs)}
    other = baseline.model_copy(update=update)
    changed = with_candidate(
        receipt, 0, baselines=[other], score=one.logprob - float(update["logprob"])
    )
    found = verified(changed)
    assert found.verdict == "differs"
    assert found.findings[0].index == 0 and found.findings[0].recomputed == one.logprob


def test_a_tampered_id_differs() -> None:
    """Of a candidate or of a context."""
    receipt = receipt_of(boundary="separate")
    ids = [*receipt.candidates[0].token_ids[:-1], 98]
    found = verified(with_candidate(receipt, 0, token_ids=ids))
    assert [one.index for one in found.findings] == [0]
    prefix = [*receipt.prefixes[0][:-1], 97]
    found = verified(receipt.model_copy(update={"prefixes": [prefix]}))
    assert found.verdict == "differs" and len(found.findings) > 1


def test_an_id_that_its_own_model_does_not_have_differs() -> None:
    """No such receipt was ever given; the other candidates hold."""
    receipt = receipt_of(boundary="separate")
    found = verified(with_candidate(receipt, 0, token_ids=[10**6]))
    assert found.verdict == "differs"
    (finding,) = found.findings
    assert finding.problem.startswith("cannot be scored here: ")
    assert finding.recomputed is None
    everywhere = receipt.model_copy(update={"prefixes": [[10**6]]})
    found = verified(everywhere)
    assert found.verdict == "differs" and len(found.findings) == len(CANDIDATES)
    assert "nothing could be computed again" in found.reason
    assert found.largest_difference is None and found.within_numeric_error is None


@pytest.mark.parametrize(
    ("normalization", "update", "words"),
    [
        ("sum", {"logprob": -0.25}, "add up to"),
        ("sum", {"score": -0.25}, "sum score"),
        ("mean", {"score": -0.25}, "mean score"),
        ("per_byte", {"divisor": 9}, "per_byte score"),
        ("gnmt", {"score": -0.25}, "gnmt score"),
    ],
)
@pytest.mark.parametrize("fingerprint", ["f" * 24, "0" * 24])
def test_what_does_not_follow_differs(
    normalization: str, update: dict[str, Any], words: str, fingerprint: str
) -> None:
    """Sums and scores follow from the log-probabilities, whatever the model is."""
    receipt = with_candidate(receipt_of(normalization=normalization), 2, **update)
    found = verified(receipt.model_copy(update={"fingerprint": fingerprint}))
    assert (found.verdict, [one.index for one in found.findings]) == ("differs", [2])
    assert words in found.findings[0].problem


def test_another_fingerprint_is_not_compared() -> None:
    """It says what is different; nothing is computed."""
    engine = FakeEngine(fingerprint="0" * 24, dtype="bfloat16", name="org/other", kernels="native")
    found = verified(receipt_of(), engine)
    assert (found.verdict, found.exit_status) == ("not_comparable", 4)
    assert "model 'org/toy', here 'org/other'" in found.reason
    assert "dtype 'float32', here 'bfloat16', kernels 'torch', here 'native'" in found.reason
    assert not engine.queries
    same = FakeEngine(fingerprint="0" * 24)
    assert "which a receipt does not tell" in verified(receipt_of(), same).reason


def test_another_fingerprint_is_compared_where_that_is_wanted() -> None:
    """Equal bits hold, others differ by so much."""
    receipt = receipt_of(candidates=[" yes", " yes."])
    found = verified(receipt, FakeEngine(fingerprint="0" * 24), any_fingerprint=True)
    assert found.verdict == "holds"
    assert found.reason.endswith("though the fingerprint is another one")
    law = {**LAW, " is": {**LAW[" is"], " yes": 0.4}}
    other = FakeEngine(law, fingerprint="0" * 24)
    found = verified(receipt, other, any_fingerprint=True)
    assert found.verdict == "differs"
    assert found.largest_difference == pytest.approx(math.log(0.5 / 0.4), rel=1e-6)
    assert found.within_numeric_error is None
    assert "not known" in found.reason


def test_a_model_of_fewer_tokens_is_not_compared() -> None:
    """It is not the receipt's fault that another model has no such token."""
    receipt = receipt_of(boundary="separate").model_copy(update={"fingerprint": "0" * 24})
    found = verified(with_candidate(receipt, 0, token_ids=[10**6]), any_fingerprint=True)
    assert (found.verdict, found.exit_status) == ("not_comparable", 4)
    assert [one.comparable for one in found.findings] == [False]


def test_what_is_too_long_here_is_not_compared() -> None:
    """A server may allow less than the one that gave the receipt; what fits is compared."""
    receipt = receipt_of(candidates=[" yes", "b" * 40])
    short = FakeEngine(max_model_len=16)
    found = verified(receipt, short)
    assert found.verdict == "not_comparable"
    assert "1 of 2 candidates" in found.reason
    assert found.logprobs == 1 and found.largest_difference == 0.0


def test_other_settings_of_the_same_model_differ() -> None:
    """A fingerprint has one dtype, one kind of kernels and one set of ends."""
    receipt = receipt_of(append_eos=True)
    for update in ({"dtype": "bfloat16"}, {"kernels": "native"}):
        found = verified(receipt.model_copy(update=update))
        assert found.verdict == "differs" and next(iter(update.values())) in found.reason
    found = verified(receipt.model_copy(update={"end_token_ids": [1, 2]}))
    assert found.verdict == "differs" and "[1, 2]" in found.reason
    other = receipt.model_copy(update={"end_token_ids": [1, 2], "fingerprint": "0" * 24})
    assert verified(other, any_fingerprint=True).verdict == "not_comparable"


def test_many_candidates_are_asked_for_in_parts() -> None:
    """Each keeps its place; a server's own bound is kept."""
    texts = [chr(97 + n % 26) + chr(97 + n // 26 % 26) for n in range(CANDIDATES_AT_ONCE + 10)]
    receipt = receipt_of(candidates=texts)
    tampered = with_candidate(receipt, 1030, **moved(receipt.candidates[1030], 0, 0.5))
    engine = FakeEngine()
    assert [one.index for one in verified(tampered, engine).findings] == [1030]
    assert len(engine.options) == 2
    with client_over(engine, max_candidates=2) as client:
        few = receipt.model_copy(update={"candidates": receipt.candidates[:3]})
        assert verify(client, few).verdict == "holds"
    with client_over(engine, max_candidates=1) as client:
        assert verify(client, few).verdict == "holds"


def test_a_short_queue_is_asked_for_less_at_a_time(tiny_folder: TinyFolder) -> None:
    """What could never wait there at once can in halves."""
    folder = str(tiny_folder("llama"))
    texts = [f" {a}{b} {b}" for a in "abcdefghijkl" for b in "abcdefghijkl"]
    receipt = receipt_of(Engine.load(EngineConfig(model=folder)), candidates=texts)
    short = Engine.load(EngineConfig(model=folder, max_queue_tokens=256, max_batch_tokens=32))
    with client_over(short) as client:
        with pytest.raises(RequestRefused) as caught:
            client.score(context="it is", candidates=texts)
        assert caught.value.code == "request_too_large"
        found = verify(client, receipt)
    assert (found.verdict, found.logprobs) == (
        "holds",
        sum(len(one.logprobs) for one in receipt.candidates),
    )


@pytest.mark.parametrize("failure", [ForwardFailed("inside")])
def test_a_failing_server_is_no_verdict(failure: ChainruleError) -> None:
    """A candidate that fails for its own sake is not compared; the others are."""
    receipt = receipt_of(candidates=["x", "y"])
    found = verified(receipt, FakeEngine(failures={"y": failure}))
    assert found.verdict == "not_comparable"
    assert [one.index for one in found.findings] == [1]


def test_a_model_of_another_name_is_asked_nothing() -> None:
    """As a check, where a name was given."""
    receipt = receipt_of()
    assert verified(receipt, model="org/toy").verdict == "holds"
    with pytest.raises(ClientError):
        verified(receipt, model="org/other")


def test_a_server_that_changes_its_model_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """No receipt is judged by two models."""
    receipt = receipt_of()
    with client_over() as client:
        answer = client.score(context="it is", candidates=["a"], compact=True, receipt=True)
        other = answer.model_copy(update={"fingerprint": "0" * 24})
        monkeypatch.setattr(client, "score", lambda **_: other)
        with pytest.raises(FingerprintMismatch):
            verify(client, receipt)
