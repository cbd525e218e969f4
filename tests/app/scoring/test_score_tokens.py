"""POST /v1/score: which tokens are scored, and how they are listed."""

from __future__ import annotations

import math

import httpx
import numpy as np
import pytest

from tests.app.calls import NO, YES, call, log, only, refusal, refusal_of, score_with
from tests.app.fake_engine import BOS, END, LAW, STOP, FakeEngine, ToyTokenizer

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine() -> FakeEngine:
    """It is the law that answers."""
    return FakeEngine()


async def test_a_merging_candidate_moves_the_start_for_all(client: httpx.AsyncClient) -> None:
    """Beside "n't", " yes" is scored from before " is", since "isn't" shares no more with it."""
    answer = await call(client, "score", candidates=[YES, "n't"], token_logprobs=True)
    yes, not_ = answer["results"]
    assert answer["boundary"]["start_token"] == 1
    assert answer["boundary"]["shift_bytes"] == 3
    assert yes["tail_tokens"] == 1 and "tail_tokens" not in not_
    assert yes["logprob"] == log(0.5) + log(0.5)
    assert not_["logprob"] == log(0.25) + log(0.75)
    assert [(t["text"], t["start"], t["end"]) for t in not_["tokens"]] == [
        (" isn", 2, 6),
        ("'t", 6, 8),
    ]
    assert yes["logprob_per_byte"] == yes["logprob"] / 4


async def test_a_pinned_start_does_not_depend_on_neighbours(client: httpx.AsyncClient) -> None:
    """With the start pinned, a candidate scores the same with and without its neighbours."""
    together = await call(client, "score", candidates=[YES, "n't"])
    alone = await call(client, "score", candidates=[YES], start_token=1)
    assert alone["results"][0]["logprob"] == together["results"][0]["logprob"]
    assert alone["boundary"]["shift_bytes"] == 3
    error = await refusal(client, "score", candidates=[YES, "n't"], start_token=2)
    assert error["param"] == "start_token"


async def test_separate_never_merges(client: httpx.AsyncClient) -> None:
    """Under ``separate`` the candidate is tokenized alone."""
    answer = await call(
        client, "score", candidates=["n't"], boundary="separate", token_logprobs=True
    )
    assert answer["boundary"]["policy"] == "separate"
    assert [token["text"] for token in only(answer)["tokens"]] == ["n", "'t"]


async def test_ids_are_scored_as_they_are(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """Ids in context or candidates are concatenated; characters and bytes are those they mean."""
    tokenizer = engine.tokenizer
    body = {"token_logprobs": True, "boundary": "separate", "normalization": "per_char"}
    ids = [tokenizer.id(" no"), tokenizer.id(" no")]
    answer = await call(
        client, "score", context=tokenizer.encode("it is"), candidates=[ids], **body
    )
    result = only(answer)
    assert result["logprob"] == log(0.25) + log(0.5)
    assert result["logprob_per_char"] == result["logprob"] / 6
    assert [(token["start"], token["end"]) for token in result["tokens"]] == [(5, 8), (8, 11)]
    text = await call(client, "score", candidates=[" no no"], **body)
    assert answer["results"] == text["results"]


@pytest.mark.parametrize("pinned", [None, 2])
async def test_a_failed_candidate_still_decides_the_policy(
    client: httpx.AsyncClient, pinned: int | None
) -> None:
    """Ids make a request separate, also those that cannot be scored."""
    answer = await call(client, "score", candidates=[[7] * 64, "n't"], start_token=pinned)
    assert answer["results"][0]["error"]["code"] == "context_length_exceeded"
    assert answer["boundary"]["policy"] == "separate"
    assert answer["results"][1]["token_count"] == 2


async def test_ids_are_separate_by_default(client: httpx.AsyncClient) -> None:
    """Where context or any candidate is given as ids, nothing is tokenized together."""
    for body in ({"context": [105, 116]}, {"candidates": [" yes", [1]]}):
        answer = await call(client, "score", **body)
        assert answer["boundary"]["policy"] == "separate"


async def test_token_entries(client: httpx.AsyncClient) -> None:
    """An entry has the token's id, text, exact bytes, place and most probable rivals."""
    result = only(await call(client, "score", candidates=[NO], top_logprobs=2))
    assert result["tokens"] == [
        {
            "id": 261,
            "text": " no",
            "bytes": [32, 110, 111],
            "start": 5,
            "end": 8,
            "logprob": log(0.25),
            "rank": 2,
            "top_logprobs": [
                {"id": 260, "text": " yes", "logprob": log(0.5)},
                {"id": 261, "text": " no", "logprob": log(0.25)},
            ],
        }
    ]


async def test_offsets_count_bytes(client: httpx.AsyncClient) -> None:
    """Offsets are bytes of UTF-8, and a token that is half a character shows as U+FFFD."""
    body = {"context": "\N{SNOWMAN}", "candidates": ["\xe9"], "normalization": "per_char"}
    result = only(await call(client, "score", **body, token_logprobs=True))
    assert [(t["start"], t["end"], t["bytes"], t["text"]) for t in result["tokens"]] == [
        (3, 4, [0xC3], "\ufffd"),
        (4, 5, [0xA9], "\ufffd"),
    ]
    assert result["logprob_per_char"] == result["logprob"]


async def test_a_text_that_was_normalized_has_no_offsets() -> None:
    """Where tokens do not spell the given text, their places are absent rather than wrong."""

    class Lowering(ToyTokenizer):
        def encode(self, text: str, *, parse_special: bool = False) -> list[int]:
            return super().encode(text.replace("yesyes", "yes"), parse_special=parse_special)

    answer = await score_with(
        FakeEngine(tokenizer=Lowering()), candidates=[" yesyes", YES], token_logprobs=True
    )
    doubled, plain = answer["results"]
    assert [t.keys() for t in doubled["tokens"]] == [{"id", "text", "bytes", "logprob", "rank"}]
    assert [(t["start"], t["end"]) for t in plain["tokens"]] == [(5, 9)]


async def test_append_eos_scores_the_end(client: httpx.AsyncClient) -> None:
    """The end is one more token with a place of no width behind the candidate."""
    answer = await call(client, "score", append_eos=True, token_logprobs=True, top_logprobs=1)
    yes, no = answer["results"]
    assert yes["logprob"] == log(0.5) + log(0.5)
    assert no["logprob"] == log(0.25) + log(0.25)
    assert yes["token_count"] == 2
    assert yes["greedy"] is True
    end = no["tokens"][1]
    assert (end["text"], end["start"], end["end"], end["rank"]) == (END, 8, 8, 2)
    assert end["top_logprobs"][0]["text"] == " no"
    assert answer["usage"]["scored_tokens"] == 4


async def test_append_eos_sums_over_several_ends() -> None:
    """A model with two end tokens ends with the probability of either."""
    tokenizer = ToyTokenizer()
    ends = (tokenizer.id(STOP), tokenizer.id(END))
    answer = await score_with(
        FakeEngine(end_token_ids=ends), candidates=[YES], append_eos=True, token_logprobs=True
    )
    end = only(answer)["tokens"][1]
    assert end["logprob"] == pytest.approx(math.log(0.5 + 0.25), abs=1e-7)
    assert (end["text"], end["rank"]) == (END, 1)


async def test_append_eos_needs_an_end_token() -> None:
    """A model without an end token cannot score the end."""
    error = await refusal_of(FakeEngine(end_token_ids=()), append_eos=True)
    assert error["param"] == "append_eos"


async def test_an_impossible_end_fails_its_candidate_alone() -> None:
    """A candidate whose end has no probability at all is an item error, by name."""
    law = {**LAW, " no": {END: 0.0, " no": 0.5}}
    with np.errstate(divide="ignore"):
        answer = await score_with(FakeEngine(law), append_eos=True)
    yes, no = answer["results"]
    assert yes["rank"] == 1
    assert no.keys() == {"index", "error"}
    assert no["error"]["code"] == "non_finite_logits"


@pytest.mark.parametrize("bad", ["", "n't" + "x" * 64])
@pytest.mark.parametrize("pinned", [None, 2])
async def test_failed_candidates_do_not_move_the_start(
    client: httpx.AsyncClient, bad: str, pinned: int | None
) -> None:
    """A candidate that cannot be scored, though it merges, leaves the others where they are."""
    alone = await call(client, "score", candidates=[YES])
    answer = await call(client, "score", candidates=[bad, YES], start_token=pinned)
    assert answer["boundary"] == alone["boundary"]
    assert answer["results"][0]["error"]["param"] == "candidates.0"
    assert answer["results"][1]["logprob"] == alone["results"][0]["logprob"]


async def test_more_rivals_than_tokens(client: httpx.AsyncClient) -> None:
    """Where the vocabulary is smaller than ``top_logprobs`` all of it is listed."""
    result = only(await call(client, "score", candidates=[YES], top_logprobs=1000))
    assert len(result["tokens"][0]["top_logprobs"]) == 272


async def test_text_that_spells_a_control_token_stays_text(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """Neither context nor candidate can smuggle a control token in."""
    result = only(
        await call(client, "score", context=f"a{END}", candidates=[f"{BOS}b"], token_logprobs=True)
    )
    assert [token["text"] for token in result["tokens"]] == list(f"{BOS}b")
    assert max(engine.queries[0].tokens) < engine.tokenizer.id(BOS)


async def test_an_empty_context_needs_a_first_token(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """Nothing can be conditional on nothing: BOS, or a token of the caller's choice."""
    assert (await refusal(client, "score", context="", candidates=["it"]))["param"] == "context"
    assert (await refusal(client, "score", context=[], candidates=["it"]))["param"] == "context"
    with_bos = await call(client, "score", context="", candidates=["it"], add_bos=True)
    assert with_bos["boundary"]["bos_added"] is True
    assert with_bos["usage"]["prompt_tokens"] == 1
    await call(client, "score", context="", candidates=["it"], prefix_token_id=7)
    assert [query.tokens[0] for query in engine.queries] == [engine.tokenizer.id(BOS), 7]
    beyond = engine.info.vocab_size
    error = await refusal(client, "score", context="", candidates=["it"], prefix_token_id=beyond)
    assert error["param"] == "prefix_token_id"


async def test_the_tokenizers_own_rule_adds_bos() -> None:
    """A tokenizer that begins texts with BOS does so here, once, unless told not to."""
    engine = FakeEngine(tokenizer=ToyTokenizer(adds_bos=True))
    answer = await score_with(engine, candidates=[YES])
    assert answer["boundary"]["bos_added"] is True
    assert answer["boundary"]["start_token"] == 3
    await score_with(engine, candidates=[YES], add_bos=False)
    assert [len(query.tokens) for query in engine.queries] == [4, 3]


async def test_ids_without_text_have_no_per_character_score(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """A row of the head without a token can be scored, but not per character or byte."""
    unused = [engine.info.vocab_size - 1]
    result = (await call(client, "score", candidates=[unused, YES]))["results"][0]
    assert result["logprob"] < 0
    assert "logprob_per_byte" not in result
    per_char = await call(client, "score", candidates=[unused, YES], normalization="per_char")
    assert per_char["results"][0]["error"]["param"] == "candidates.0"
    assert per_char["results"][1]["rank"] == 1
