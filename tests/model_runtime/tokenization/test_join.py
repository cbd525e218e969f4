"""The join of a context and its candidates: where scoring starts, and of which tokens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_runtime.errors import InvalidQuery, TokenIdOutOfRange
from model_runtime.tokenization.join import Boundary, Join, JoinedCandidate, join
from model_runtime.tokenization.tokenizer import Tokenizer
from tests.tiny_models import (
    CORE_KINDS,
    END,
    prefixed_tokenizer,
    sentencepiece_tokenizer,
    tiny_tokenizer,
)

TOKENIZERS = {kind: Tokenizer(tiny_tokenizer(kind)) for kind in CORE_KINDS}

WORDS = ["The capital of France", " is", "is", "n't", " yes", " ", "  ", "\n", "42", "é", "😀", END]
PIECES = st.lists(st.sampled_from(WORDS) | st.text(max_size=4), min_size=1, max_size=5)
TEXT = PIECES.map("".join).filter(bool)
many = settings(max_examples=150, deadline=None)


@pytest.fixture
def llama() -> Tokenizer:
    """A byte-level tokenizer without a BOS rule."""
    return TOKENIZERS["llama"]


@pytest.fixture
def gemma() -> Tokenizer:
    """A byte-level tokenizer whose rule adds BOS."""
    return TOKENIZERS["gemma3"]


@pytest.fixture(scope="module")
def real(real_folder: Path) -> Tokenizer:
    """The default model's tokenizer."""
    return Tokenizer.load(real_folder)


def good(candidate: JoinedCandidate | InvalidQuery) -> JoinedCandidate:
    """The candidate, which must not be an error."""
    assert isinstance(candidate, JoinedCandidate), candidate
    return candidate


def pieces(tokenizer: Tokenizer, candidate: JoinedCandidate | InvalidQuery) -> list[str]:
    """The texts of the scored tokens."""
    return [tokenizer.token_text(token) for token in good(candidate).token_ids]


def own_start(tokenizer: Tokenizer, context: str, candidate: str) -> int:
    """The common token prefix of the two tokenizations, by another way than the code's."""
    alone, whole = tokenizer.encode(context), tokenizer.encode(context + candidate)
    return max(length for length in range(len(alone) + 1) if alone[:length] == whole[:length])


def check_joint(tokenizer: Tokenizer, context: str, candidates: list[str]) -> None:
    """Everything that holds of any joint join without BOS."""
    joined = join(tokenizer, context, candidates)
    starts = [own_start(tokenizer, context, text) for text in candidates]
    assert joined.start_token == min(
        [start for start in starts if start], default=joined.context_tokens
    )
    assert joined.prefix == tuple(tokenizer.encode(context))[: joined.start_token]
    assert joined.context_tokens == len(tokenizer.encode(context))
    prefix_bytes = b"".join(map(tokenizer.token_bytes, joined.prefix))
    assert joined.shift_bytes == len(context.encode()) - len(prefix_bytes)
    for text, start, candidate in zip(candidates, starts, joined.candidates, strict=True):
        if start == 0:
            assert isinstance(candidate, InvalidQuery)
            continue
        scored = [tokenizer.token_bytes(token) for token in good(candidate).token_ids]
        assert prefix_bytes + b"".join(scored) == (context + text).encode()
        tail = good(candidate).tail_tokens
        assert len(b"".join(scored[:tail])) <= joined.shift_bytes
        assert len(b"".join(scored[: tail + 1])) > joined.shift_bytes


@many
@given(
    kind=st.sampled_from(["llama", "qwen3", "gpt2"]),
    context=TEXT,
    candidates=st.lists(TEXT, max_size=4),
)
def test_joint_candidates_continue_one_common_prefix(
    kind: str, context: str, candidates: list[str]
) -> None:
    """The start is the least of the candidates' own, and no byte is lost or doubled."""
    check_joint(TOKENIZERS[kind], context, candidates)


@pytest.mark.real_model
@many
@given(context=TEXT, candidates=st.lists(TEXT, max_size=4))
def test_the_same_holds_of_the_default_tokenizer(
    real: Tokenizer, context: str, candidates: list[str]
) -> None:
    """The rule is checked on a real vocabulary of real merges, too."""
    try:
        for text in (context, *candidates):
            real.check_text(text)
    except InvalidQuery:
        return
    check_joint(real, context, candidates)


@pytest.mark.parametrize("name", ["llama", "default"])
@pytest.mark.real_model
def test_a_merging_candidate_moves_the_start(name: str, llama: Tokenizer, real: Tokenizer) -> None:
    """ "n't" takes the end of "is" with it, and every other candidate goes along."""
    tokenizer = llama if name == "llama" else real
    alone = join(tokenizer, "It is", [" yes"])
    assert (alone.start_token, alone.shift_bytes) == (2, 0)
    assert pieces(tokenizer, alone.candidates[0]) == [" yes"]
    assert good(alone.candidates[0]).tail_tokens == 0

    both = join(tokenizer, "It is", [" yes", "n't"])
    assert (both.start_token, both.shift_bytes) == (1, len(" is"))
    assert pieces(tokenizer, both.candidates[0]) == [" is", " yes"]
    assert good(both.candidates[0]).tail_tokens == 1
    assert pieces(tokenizer, both.candidates[1]) == [" isn", "'t"]
    assert good(both.candidates[1]).tail_tokens == 0


def test_pinning_keeps_the_start(llama: Tokenizer) -> None:
    """With the start pinned, a candidate's tokens do not depend on its neighbours."""
    both = join(llama, "It is", [" yes", "n't"])
    alone = join(llama, "It is", [" yes"], start_token=both.start_token)
    assert alone.candidates == both.candidates[:1]
    assert alone.prefix == both.prefix
    assert alone.shift_bytes == both.shift_bytes


@pytest.mark.parametrize("pinned", [-1, 0, 2, 3, 2**63])
def test_a_start_that_a_candidate_cannot_have_is_refused(llama: Tokenizer, pinned: int) -> None:
    """The pin lies between 1 and the least start of the candidates."""
    with pytest.raises(InvalidQuery, match="between 1 and 1") as caught:
        join(llama, "It is", [" yes", "n't"], start_token=pinned)
    assert caught.value.param == "start_token"


@pytest.mark.real_model
def test_a_space_at_the_end_of_the_context_moves_into_the_candidate(real: Tokenizer) -> None:
    """ "is " + "Paris" is scored as " Paris", one byte of it the context's."""
    joined = join(real, "The capital of France is ", ["Paris", "London"])
    assert joined.shift_bytes == 1
    assert joined.context_tokens == joined.start_token + 1
    assert [pieces(real, candidate) for candidate in joined.candidates] == [[" Paris"], [" London"]]
    assert [good(candidate).tail_tokens for candidate in joined.candidates] == [0, 0]


@pytest.mark.parametrize("kind", CORE_KINDS)
def test_text_that_spells_a_control_token_stays_text(kind: str) -> None:
    """Neither context nor candidate can smuggle a control token in."""
    tokenizer = TOKENIZERS[kind]
    joined = join(tokenizer, f"a{END}", [f"b{END}"])
    scored = good(joined.candidates[0]).token_ids
    own = joined.prefix[1:] if joined.bos_added else joined.prefix
    assert tokenizer.eos_token_id not in own + scored
    assert tokenizer.decode(own + scored) == f"a{END}b{END}"


def test_failed_candidates_do_not_move_the_start(llama: Tokenizer) -> None:
    """A candidate that cannot be encoded is its own error; the rest is as if it were not there."""
    joined = join(llama, "It is", [" yes", "", "\ud800"])
    clean = join(llama, "It is", [" yes"])
    assert joined.prefix == clean.prefix
    assert joined.candidates[0] == clean.candidates[0]
    empty, broken = joined.candidates[1:]
    assert isinstance(empty, InvalidQuery)
    assert empty.param == "candidates.1"
    assert isinstance(broken, InvalidQuery)
    assert broken.param == "candidates.2"
    assert "lone surrogate" in str(broken)


def test_all_candidates_may_fail(llama: Tokenizer) -> None:
    """Then the start is the end of the context."""
    joined = join(llama, "It is", ["", ""])
    assert (joined.start_token, joined.shift_bytes, joined.context_tokens) == (2, 0, 2)
    assert all(isinstance(candidate, InvalidQuery) for candidate in joined.candidates)


def test_a_candidate_that_merges_with_the_whole_context_fails_alone(llama: Tokenizer) -> None:
    """Nothing would stand before it; its neighbour is still scored."""
    joined = join(llama, " is", ["n't", " yes"])
    merged, neighbour = joined.candidates
    assert isinstance(merged, InvalidQuery)
    assert merged.param == "candidates.0"
    assert joined.start_token == 1
    assert pieces(llama, neighbour) == [" yes"]


def test_with_bos_it_can_be_scored(gemma: Tokenizer) -> None:
    """BOS stands before the context, so a whole context can be taken back."""
    joined = join(gemma, " is", ["n't", " yes"])
    assert joined.bos_added
    assert (joined.start_token, joined.shift_bytes, joined.context_tokens) == (1, 3, 2)
    assert pieces(gemma, joined.candidates[0]) == [" isn", "'t"]
    assert pieces(gemma, joined.candidates[1]) == [" is", " yes"]


def test_a_space_that_the_tokenizer_put_first_is_no_byte_of_the_context() -> None:
    """SentencePiece starts every text with a space of its own; it is not counted as shifted."""
    tokenizer = Tokenizer(sentencepiece_tokenizer())
    joined = join(tokenizer, "i", ["s", "a"], add_bos=True)
    assert (joined.start_token, joined.shift_bytes, joined.context_tokens) == (1, 1, 3)
    assert pieces(tokenizer, joined.candidates[0]) == [" is"]
    assert pieces(tokenizer, joined.candidates[1]) == [" ", "i", "a"]
    assert [good(candidate).tail_tokens for candidate in joined.candidates] == [0, 2]


def test_bos_follows_the_tokenizers_rule_unless_told(llama: Tokenizer, gemma: Tokenizer) -> None:
    """None is the rule; true and false are obeyed."""
    for tokenizer, by_rule in ((llama, False), (gemma, True)):
        for add_bos, expected in ((None, by_rule), (True, True), (False, False)):
            joined = join(tokenizer, "It is", [" yes"], add_bos=add_bos)
            assert joined.bos_added is expected
            assert joined.prefix[expected:] == tuple(tokenizer.encode("It is"))
            assert joined.context_tokens == 2 + expected


def test_all_that_the_rule_puts_first_is_put_first() -> None:
    """Several tokens stand before a text, as in transformers; ``add_bos`` true means BOS alone."""
    theirs = prefixed_tokenizer()
    theirs.bos_token = "<sop>"
    tokenizer = Tokenizer(theirs)
    text, *_ = joins = [
        join(tokenizer, context, [" yes"], add_bos=add_bos)
        for context in ("It is", "", tokenizer.encode("It is"))
        for add_bos in (None, True)
    ]
    assert list(text.prefix) == theirs("It is").input_ids[:-1]
    assert [(one.context_tokens, one.bos_added) for one in joins] == [
        *[(4, True), (3, True)],
        *[(2, True), (1, True)],
        *[(2, False), (3, True)],
    ]
    assert not join(tokenizer, "It is", [" yes"], add_bos=False).bos_added


def test_ids_get_no_bos_by_rule(gemma: Tokenizer) -> None:
    """Ids are taken as they are; only an explicit wish puts BOS before them."""
    ids = gemma.encode("It is")
    assert not join(gemma, ids, [" yes"]).bos_added
    assert join(gemma, ids, [" yes"], add_bos=True).prefix == (gemma.bos_token_id, *ids)


def test_bos_that_the_tokenizer_lacks_is_refused() -> None:
    """``add_bos`` on a tokenizer without BOS names the field."""
    with pytest.raises(InvalidQuery, match="no BOS") as caught:
        join(TOKENIZERS["qwen3"], "It is", [" yes"], add_bos=True)
    assert caught.value.param == "add_bos"


@pytest.mark.parametrize("context", ["", []])
def test_an_empty_context_needs_a_first_token(
    llama: Tokenizer, gemma: Tokenizer, context: str | list[int]
) -> None:
    """BOS by wish or rule, or a prefix token; else the context is at fault."""
    with pytest.raises(InvalidQuery, match="first token") as caught:
        join(llama, context, [" yes"])
    assert caught.value.param == "context"
    assert f"(this one is {llama.bos_token_id})" in str(caught.value)
    assert join(llama, context, [" yes"], add_bos=True).prefix == (llama.bos_token_id,)
    assert join(gemma, context, [" yes"]).prefix == (gemma.bos_token_id,)
    prefixed = join(llama, context, [" yes"], prefix_token_id=7)
    assert (prefixed.prefix, prefixed.bos_added, prefixed.context_tokens) == ((7,), False, 1)
    assert pieces(llama, prefixed.candidates[0]) == [" yes"]


def test_an_empty_context_is_told_what_to_take_without_bos() -> None:
    """The token that ends this model's texts, which may then be taken."""
    tokenizer = TOKENIZERS["qwen3"]
    with pytest.raises(InvalidQuery, match="no BOS") as caught:
        join(tokenizer, "", [" yes"])
    (told,) = re.findall(r"prefix_token_id (\d+)", str(caught.value))
    assert join(tokenizer, "", [" yes"], prefix_token_id=int(told)).prefix == (int(told),)


def test_the_callers_prefix_token_goes_before_the_rule(gemma: Tokenizer) -> None:
    """What the caller names beats what the tokenizer would do; an explicit BOS beats both."""
    assert join(gemma, "", ["a"], prefix_token_id=7).prefix == (7,)
    assert join(gemma, "", ["a"], prefix_token_id=7, add_bos=True).prefix == (gemma.bos_token_id,)
    assert join(gemma, "It", ["a"], prefix_token_id=7, add_bos=False).prefix[:1] != (7,)


def test_separate_concatenates_ids(llama: Tokenizer) -> None:
    """Context and candidate are tokenized alone, so nothing merges and nothing shifts."""
    joined = join(llama, "It is", ["n't"], boundary=Boundary.SEPARATE)
    assert joined.policy is Boundary.SEPARATE
    assert joined.prefix == tuple(llama.encode("It is"))
    assert good(joined.candidates[0]).token_ids == tuple(llama.encode("n't"))
    assert (joined.shift_bytes, good(joined.candidates[0]).tail_tokens) == (0, 0)


def test_separate_can_start_inside_the_context(llama: Tokenizer) -> None:
    """A pinned start scores the end of the context as well, and counts it as tail."""
    joined = join(llama, "It is", [[5, 6]], start_token=1)
    is_token = llama.encode("It is")[1]
    assert joined.candidates == (JoinedCandidate((is_token, 5, 6), tail_tokens=1),)
    assert joined.shift_bytes == len(" is")


def test_ids_are_joined_separately_unless_joint_is_demanded(llama: Tokenizer) -> None:
    """Any ids turn the default to ``separate``; ``joint`` with ids is refused."""
    everything: list[tuple[str | list[int], list[str | list[int]]]] = [
        ([5, 6], [" yes"]),
        ("It is", [" yes", [7]]),
    ]
    for context, candidates in everything:
        assert join(llama, context, candidates).policy is Boundary.SEPARATE
        with pytest.raises(InvalidQuery) as caught:
            join(llama, context, candidates, boundary=Boundary.JOINT)
        assert caught.value.param == "boundary"
    assert join(llama, "It is", [" yes"]).policy is Boundary.JOINT


@pytest.mark.parametrize("bad", [-1, 384, 2**63])
def test_ids_out_of_range_are_named(llama: Tokenizer, bad: int) -> None:
    """In the context or a setting they fail the request, in a candidate that candidate."""
    with pytest.raises(TokenIdOutOfRange) as caught:
        join(llama, [5, bad], [[7]])
    assert caught.value.param == "context"
    with pytest.raises(TokenIdOutOfRange) as caught:
        join(llama, "", ["a"], prefix_token_id=bad)
    assert caught.value.param == "prefix_token_id"
    first, second = join(llama, [5], [[7], [8, bad]]).candidates
    assert first == JoinedCandidate((7,), 0)
    assert isinstance(second, TokenIdOutOfRange)
    assert second.param == "candidates.1"


def test_rows_of_the_head_without_a_token_are_valid_ids() -> None:
    """A search may have produced such an id, and scoring the same ids must work."""
    tokenizer = Tokenizer(tiny_tokenizer("qwen3"), head_rows=384)
    unused = tokenizer.vocab_size
    [candidate] = join(tokenizer, [5], [[unused, unused]]).candidates
    assert candidate == JoinedCandidate((unused, unused), tail_tokens=0)


def test_bad_context_text_names_the_context(llama: Tokenizer) -> None:
    """A lone surrogate in the context fails the request."""
    with pytest.raises(InvalidQuery, match="lone surrogate") as caught:
        join(llama, "It \ud800", [" yes"])
    assert caught.value.param == "context"


def test_no_candidates_is_a_join_of_the_context_alone(llama: Tokenizer) -> None:
    """Next-token requests join nothing to their context."""
    joined = join(llama, "It is", [])
    assert joined == Join(
        policy=Boundary.JOINT,
        prefix=tuple(llama.encode("It is")),
        shift_bytes=0,
        context_tokens=2,
        bos_added=False,
        candidates=(),
        context=tuple(llama.encode("It is")),
        suffix="",
    )


@pytest.mark.parametrize("boundary", Boundary)
def test_first_tokens_are_those_of_a_join(llama: Tokenizer, boundary: Boundary) -> None:
    """Of texts that were no candidates; none where the text merges with the context."""
    texts = [" yes", "the", "n't", " no"]
    joined = join(llama, "It is", ["!"], boundary=boundary)
    assert joined.context == tuple(llama.encode("It is"))
    for text, token in zip(texts, joined.first_tokens(llama, texts), strict=True):
        alone = join(llama, "It is", [text], boundary=boundary)
        merges = alone.start_token < alone.context_tokens
        assert (token is None) == merges
        assert merges or token == good(alone.candidates[0]).token_ids[0]
