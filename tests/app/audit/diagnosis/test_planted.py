"""Each mistake, planted in numbers that transformers makes, is named; so are two at once."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.schemas.diagnosis import Diagnosis
from tests.app.audit.diagnosis.conftest import CANDIDATES, CONTEXT, Pair
from tests.app.audit.diagnosis.other_systems import OtherSystem, log_softmax, means, totals
from tests.conftest import TinyFolder

Planted = Callable[[Pair], list[float]]


def right(pair: Pair) -> list[list[float]]:
    """The lists of log-probabilities as they should be."""
    return [pair.other.logprobs(before, answer) for before, answer in pair.parts()]


def each(method: str, **options: Any) -> Planted:
    """Totals of what a method of the other system makes of each candidate."""

    def planted(pair: Pair) -> list[float]:
        make = getattr(pair.other, method)
        return totals([make(before, answer, **options) for before, answer in pair.parts()])

    return planted


def with_context(change: Callable[[Pair, list[int]], list[int]]) -> Planted:
    """Totals behind another context."""

    def planted(pair: Pair) -> list[float]:
        found = [(change(pair, before), answer) for before, answer in pair.parts()]
        return totals([pair.other.logprobs(before, answer) for before, answer in found])

    return planted


def without_space(pair: Pair) -> list[float]:
    """The words of the candidates alone, tokenized alone."""
    before = pair.other.context(CONTEXT)
    answers = [pair.other.ids(one.removeprefix(" ")) for one in CANDIDATES]
    return totals([pair.other.logprobs(before, answer) for answer in answers])


def apart(pair: Pair) -> list[float]:
    """The space goes to the context, and the words are tokenized alone."""
    before = pair.other.context(f"{CONTEXT} ")
    answers = [pair.other.ids(one.removeprefix(" ")) for one in CANDIDATES]
    return totals([pair.other.logprobs(before, answer) for answer in answers])


def with_end(pair: Pair) -> list[float]:
    parts = [(before, [*answer, pair.other.end]) for before, answer in pair.parts()]
    return totals([pair.other.logprobs(before, answer) for before, answer in parts])


def over_all_tokens(pair: Pair) -> list[float]:
    found = zip(pair.parts(), right(pair), strict=True)
    return [math.fsum(one) / (len(before) + len(answer)) for (before, answer), one in found]


def bos(pair: Pair) -> list[int]:
    return [int(pair.other.tokenizer.bos_token_id)]


def scaled(make: Planted, factor: float) -> Planted:
    """The same in another unit."""
    return lambda pair: [one * factor for one in make(pair)]


def averaged(method: str, **options: Any) -> Planted:
    """Means of what a method of the other system makes of each candidate."""

    def planted(pair: Pair) -> list[float]:
        make = getattr(pair.other, method)
        return means([make(before, answer, **options) for before, answer in pair.parts()])

    return planted


def without_first(pair: Pair) -> list[float]:
    return totals([one[1:] for one in right(pair)])


def without_rest(pair: Pair) -> list[float]:
    return totals([one[:3] for one in right(pair)])


def by_bytes(pair: Pair) -> list[float]:
    sums = totals(right(pair))
    return [one / len(text.encode()) for one, text in zip(sums, CANDIDATES, strict=True)]


def among(temperature: float = 1.0) -> Planted:
    return lambda pair: log_softmax(totals(right(pair)), temperature)


def colder_behind_bos(pair: Pair) -> list[float]:
    parts = [([*bos(pair), *before], answer) for before, answer in pair.parts()]
    return totals([pair.other.logprobs(before, answer, 0.8) for before, answer in parts])


def ended_without_bos(pair: Pair) -> list[float]:
    parts = [(before[1:], [*answer, pair.other.end]) for before, answer in pair.parts()]
    return totals([pair.other.logprobs(before, answer) for before, answer in parts])


PLAIN = each("logprobs")
CUT = with_context(lambda _, ids: ids[-8:])
BOS_FIRST = with_context(lambda pair, ids: [*bos(pair), *ids])
IN_CHAT = with_context(lambda pair, _: pair.other.chat(CONTEXT))
BITS, BANS = 1 / math.log(2), 1 / math.log(10)

SINGLES: list[tuple[str, str, Planted]] = [
    ("llama", "shifted_by_one", each("unshifted")),
    ("llama", "shifted_twice", each("shifted_twice")),
    ("llama", "window_early", each("early")),
    ("llama", "prompt_scored", each("everything")),
    ("llama", "first_token_dropped", without_first),
    ("llama", "softmax_over_candidates", among()),
    ("llama", "mean", averaged("logprobs")),
    ("llama", "per_byte", by_bytes),
    ("llama", "prompt_in_length", over_all_tokens),
    ("llama", "base_2", scaled(PLAIN, BITS)),
    ("llama", "base_10", scaled(PLAIN, BANS)),
    ("llama", "negated", scaled(PLAIN, -1)),
    ("llama", "temperature", each("logprobs", temperature=0.7)),
    ("llama", "temperature", each("logprobs", temperature=2.5)),
    ("llama", "bos_added", BOS_FIRST),
    ("gemma3", "bos_missing", with_context(lambda _, ids: ids[1:])),
    ("gemma3", "bos_doubled", BOS_FIRST),
    ("llama", "end_added", with_end),
    ("llama", "other_split", apart),
    ("llama", "space_missing", without_space),
    ("llama", "template_added", IN_CHAT),
    ("llama", "truncated", CUT),
    ("llama", "truncated", without_rest),
]
"""The model, the mistake, and the numbers that it makes."""


def first(diagnosis: Diagnosis) -> list[str]:
    """The mistakes of the first explanation."""
    assert diagnosis.explanations, diagnosis
    return list(diagnosis.explanations[0].mistakes)


@pytest.mark.parametrize(("kind", "mistake", "make"), SINGLES)
def test_a_planted_mistake_is_named_first(
    kind: str, mistake: str, make: Planted, pairs: dict[str, Pair]
) -> None:
    """In numbers with the digits that a log shows."""
    found = pairs[kind].diagnose({"totals": [round(one, 4) for one in make(pairs[kind])]})
    assert found.verdict == "explained"
    assert first(found) == [mistake], found.summary
    best = found.explanations[0]
    assert best.fits and best.largest_difference <= best.tolerance
    assert found.as_reported is not None and not found.as_reported.fits
    assert best.chance is not None and best.chance < 0.05


def test_a_temperature_is_estimated(llama: Pair) -> None:
    """As far as the digits of the numbers tell it."""
    found = llama.diagnose({"totals": each("logprobs", temperature=0.7)(llama)})
    assert found.explanations[0].estimate == pytest.approx(0.7, abs=1e-4)
    coarse = [round(one, 2) for one in each("logprobs", temperature=0.7)(llama)]
    span = llama.diagnose({"totals": coarse}).explanations[0].estimate_range
    assert span is not None and span[0] < 0.7 < span[1] and span[1] - span[0] < 0.05


def test_a_softmax_over_some_tokens_is_named(llama: Pair) -> None:
    """With their number, for tokens that are among the most probable ones."""
    before = llama.other.context(CONTEXT)
    answers: list[list[int]] = []
    for ranks in ((0, 3), (7, 1, 2), (12,), (5, 5)):
        answer: list[int] = []
        for rank in ranks:
            row = llama.other.table([*before, *answer])[-1]
            answer.append(int(row.argsort(descending=True)[rank]))
        answers.append(answer)
    for count in (20, 33):
        numbers = totals([llama.other.over_top(before, answer, count) for answer in answers])
        found = llama.diagnose({"totals": numbers}, candidates=answers)
        assert first(found) == ["softmax_over_top_k"]
        assert found.explanations[0].estimate == count


def test_a_cut_is_found(llama: Pair) -> None:
    """After how many tokens of each candidate the other system stopped."""
    cut = llama.diagnose({"totals": totals([one[:3] for one in right(llama)])})
    assert cut.explanations[0].estimate == 3


CHAT = [{"role": "user", "content": CONTEXT}]


def test_a_missing_template_is_named(llama: Pair) -> None:
    """Messages were asked about; the other system took their text as it is."""
    plain = totals(right(llama))
    found = llama.diagnose({"totals": plain}, context=CHAT)
    assert first(found) == ["template_missing"]
    before = llama.other.chat(CONTEXT)
    answers = [llama.other.ids(one) for one in CANDIDATES]
    good = totals([llama.other.logprobs(before, answer) for answer in answers])
    assert llama.diagnose({"totals": good}, context=CHAT).verdict == "agree"


def test_a_text_without_its_template_begins_as_texts_do(gemma: Pair) -> None:
    """With BOS, where the tokenizer's rule puts it."""
    found = gemma.diagnose({"totals": totals(right(gemma))}, context=CHAT)
    assert first(found) == ["template_missing"]


def test_a_missing_end_is_named(llama: Pair) -> None:
    """Ends were asked for, and the other system scored none."""
    found = llama.diagnose({"totals": totals(right(llama))}, append_eos=True)
    assert first(found) == ["end_missing"]
    assert llama.diagnose({"totals": with_end(llama)}, append_eos=True).verdict == "agree"


PAIRS: list[tuple[str, set[str], Planted]] = [
    ("llama", {"shifted_by_one", "base_2"}, scaled(each("unshifted"), BITS)),
    ("llama", {"shifted_by_one", "mean"}, averaged("unshifted")),
    ("llama", {"temperature", "mean"}, averaged("logprobs", temperature=1.7)),
    ("llama", {"temperature", "softmax_over_candidates"}, among(2.0)),
    ("llama", {"temperature", "bos_added"}, colder_behind_bos),
    ("gemma3", {"bos_missing", "end_added"}, ended_without_bos),
    ("llama", {"truncated", "negated"}, scaled(CUT, -1)),
    ("llama", {"template_added", "base_10"}, scaled(IN_CHAT, BANS)),
]


@pytest.mark.parametrize(("kind", "mistakes", "make"), PAIRS)
def test_two_mistakes_at_once_are_named_as_a_pair(
    kind: str, mistakes: set[str], make: Planted, pairs: dict[str, Pair]
) -> None:
    """Where neither alone explains the numbers."""
    found = pairs[kind].diagnose({"totals": make(pairs[kind])})
    assert found.verdict == "explained", found.summary
    assert set(first(found)) == mistakes


def of_ids(pair: Pair, before: list[int], *, spaced: bool = True) -> list[float]:
    """Totals of the candidates, or of their words tokenized alone, behind a context."""
    answers = [pair.other.answer(CONTEXT, one) for one in CANDIDATES]
    if not spaced:
        answers = [pair.other.ids(one.removeprefix(" ")) for one in CANDIDATES]
    return totals([pair.other.logprobs(before, answer) for answer in answers])


CHAT = [{"role": "user", "content": CONTEXT}]


def test_two_mistakes_in_what_was_fed_are_named(llama: Pair, gemma: Pair) -> None:
    """Two of the texts, of the tokens, or one of each."""
    begun = gemma.other.context(CONTEXT)
    bare = gemma.diagnose({"totals": of_ids(gemma, begun[1:])}, context=CHAT)
    assert set(first(bare)) == {"template_missing", "bos_missing"}
    ids = llama.other.context(CONTEXT)
    joined = llama.diagnose({"totals": of_ids(llama, ids, spaced=False)}, context=CHAT)
    assert set(first(joined)) == {"template_missing", "space_missing"}
    doubled = of_ids(gemma, [*bos(gemma), *begun], spaced=False)
    assert set(first(gemma.diagnose({"totals": doubled}))) == {"bos_doubled", "space_missing"}
    cut = llama.diagnose({"totals": of_ids(llama, [*bos(llama), *ids[-8:]])})
    assert set(first(cut)) == {"bos_added", "truncated"}


def test_two_estimates_are_both_told(llama: Pair) -> None:
    """Of a temperature, and of what the context was cut to."""
    parts = [(before[-8:], answer) for before, answer in llama.parts()]
    numbers = totals([llama.other.logprobs(before, answer, 0.8) for before, answer in parts])
    best = llama.diagnose({"totals": numbers}).explanations[0]
    assert set(best.mistakes) == {"temperature", "truncated"}
    assert best.estimates == {"temperature": pytest.approx(0.8, abs=1e-4), "truncated": 8}
    assert best.estimate == best.estimates["temperature"]


def test_whatever_fits_is_named(llama: Pair) -> None:
    """However much it is: what is not shown in full is named in short."""
    found = llama.diagnose({"totals": [None, -4.0, None, None], "decimals": 0})
    short = [frozenset(one.mistakes) for one in found.also_fitting]
    assert len(found.explanations) == 8 and short
    assert len(set(short)) == len(short)


def test_bfloat16_is_told_from_mistakes(llama: Pair, tiny_folder: TinyFolder) -> None:
    """What its forward pass gives is noise, and what is wrong beside that is named with it."""
    rough = Pair(llama.client, OtherSystem(tiny_folder("llama"), torch.bfloat16))
    found = llama.diagnose({"token_logprobs": right(rough)})
    assert found.verdict == "explained"
    assert first(found) == ["bf16_noise"]
    wrong = [rough.other.unshifted(*part) for part in rough.parts()]
    assert set(first(llama.diagnose({"token_logprobs": wrong}))) == {"shifted_by_one", "bf16_noise"}


def test_numbers_that_are_right_agree(pairs: dict[str, Pair]) -> None:
    """Of every form, with all digits and with few."""
    for pair in pairs.values():
        lists = right(pair)
        sums = totals(lists)
        probabilities = [math.exp(one) for one in sums]
        order = sorted(range(len(sums)), key=lambda index: -sums[index])
        for reported in (
            {"totals": sums},
            {"totals": [round(one, 2) for one in sums]},
            {"totals": means(lists), "normalization": "mean"},
            {"probabilities": probabilities},
            {"token_logprobs": lists},
            {"order": order},
        ):
            found = pair.diagnose(reported)
            assert found.verdict == "agree", (reported, found.summary)
            assert found.summary.startswith("they agree")


def test_only_what_was_computed_is_unaffected(llama: Pair) -> None:
    """What cannot be made of token ids, or of numbers of this kind, is untried."""
    parts = llama.parts()
    found = llama.diagnose(
        {"probabilities": [math.exp(one) for one in totals(right(llama))]},
        context=parts[0][0],
        candidates=[answer for _, answer in parts],
    )
    untried = {name for one in found.untried for name in one.mistakes}
    assert found.verdict == "agree"
    assert {"template_added", "other_split", "space_missing", "base_2", "negated"} <= untried
    assert not untried & {*found.unaffected}
    assert {"bos_missing", "end_missing"} <= {*found.unaffected}


def test_lists_and_probabilities_are_diagnosed(llama: Pair) -> None:
    """The same mistakes in other forms."""
    unshifted = [llama.other.unshifted(*part) for part in llama.parts()]
    assert first(llama.diagnose({"token_logprobs": unshifted})) == ["shifted_by_one"]
    ended = [llama.other.logprobs(b, [*a, llama.other.end]) for b, a in llama.parts()]
    assert first(llama.diagnose({"token_logprobs": ended})) == ["end_added"]
    dropped = [one[1:] for one in right(llama) if len(one) > 1]
    kept = [text for text, one in zip(CANDIDATES, right(llama), strict=True) if len(one) > 1]
    lists = llama.diagnose({"token_logprobs": dropped}, candidates=kept)
    assert first(lists) == ["first_token_dropped"]
    among = [math.exp(one) for one in log_softmax(totals(right(llama)))]
    assert first(llama.diagnose({"probabilities": among})) == ["softmax_over_candidates"]
    gap = [[None, *one[1:]] for one in unshifted]
    assert first(llama.diagnose({"token_logprobs": gap})) == ["shifted_by_one"]


def test_what_cannot_be_told_apart_is_said_together(llama: Pair) -> None:
    """In ASCII a character is a byte: neither is said without the other."""
    sizes = [len(text) for text in CANDIDATES]
    per_byte = [one / size for one, size in zip(totals(right(llama)), sizes, strict=True)]
    found = llama.diagnose({"totals": per_byte})
    assert {tuple(one.mistakes) for one in found.explanations} == {("per_byte",), ("per_char",)}
    assert "per_byte, or per_char" in found.summary


def test_too_few_digits_prove_nothing(llama: Pair) -> None:
    """One number with one digit is met by something or other: that is said, and no name."""
    sums = totals(right(llama))
    found = llama.diagnose({"totals": [None, float(round(sums[1] / math.log(2))), None, None]})
    assert found.verdict == "undetermined"
    assert "by chance" in found.summary
    assert ["temperature"] in [one.mistakes for one in found.untried]


def test_an_order_tells_less(llama: Pair) -> None:
    """It is compared, its agreement is given, and it is said to tell less."""
    sums = totals(right(llama))
    order = sorted(range(len(sums)), key=lambda index: sums[index])
    found = llama.diagnose({"order": order})
    assert found.rank_agreement == -1
    assert "an order tells less" in found.summary
    assert ["negated"] in [one.mistakes for one in found.explanations]


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32))
def test_random_numbers_are_none_of_these(seed: int, llama: Pair) -> None:
    """Nothing is made up for them."""
    numbers = [random.Random(seed + place).uniform(-60, -1) for place in range(len(CANDIDATES))]
    found = llama.diagnose({"totals": numbers})
    assert found.verdict == "none", found.summary
    assert found.summary.startswith("none of these")
    differences = [one.largest_difference for one in found.closest]
    assert differences == sorted(differences) and differences


WORDS = st.lists(
    st.sampled_from([" Paris", " not", " here", " the", " answer", " is", " Tokyo", " red"]),
    min_size=1,
    max_size=5,
).map("".join)


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    texts=st.lists(WORDS, min_size=2, max_size=4, unique=True),
    method=st.sampled_from(["unshifted", "shifted_twice", "early", "everything", "logprobs"]),
)
def test_whatever_the_candidates_are(texts: list[str], method: str, llama: Pair) -> None:
    """What was done is among what fits, and nothing is said of numbers that are right."""
    names = {
        "unshifted": "shifted_by_one",
        "shifted_twice": "shifted_twice",
        "early": "window_early",
        "everything": "prompt_scored",
    }
    make = getattr(llama.other, method)
    numbers = totals([make(*part) for part in llama.parts(texts)])
    found = llama.diagnose({"totals": numbers}, candidates=texts)
    if method == "logprobs":
        assert found.verdict == "agree"
    else:
        assert [names[method]] in [one.mistakes for one in found.explanations]
