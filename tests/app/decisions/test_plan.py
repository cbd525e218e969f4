"""Questions as queries: what they cost is known before they are made."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
from tokenizers import normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from app.decisions import plan as decision_plan
from app.decisions import tokens as question_tokens
from app.decisions.answers import read_decisions
from app.decisions.plan import DecisionPlan, plan_decisions
from app.decisions.question import Option, Question
from app.schemas.debias import Debias
from app.scoring.token_paths import PathQueries
from model_runtime import InvalidQuery, LogprobResult, Tokenizer
from tests.app.compat.decisions.decision_calls import chat_engine
from tests.app.fake_engine import END
from tests.conftest import TinyFolder

ENGINE = chat_engine()


def choice(*texts: str, param: str = "questions.x") -> Question:
    """A choice between these."""
    return Question("choice", "Which?", tuple(map(Option, texts)), param)


def planned(*questions: Question, debias: Debias = "none") -> PathQueries[DecisionPlan]:
    """What they ask about an input."""
    return plan_decisions("it", questions, debias, ENGINE.tokenizer, ENGINE.info)


def test_queries_stand_by_question_by_order_by_option() -> None:
    """Options are asked as they were sent, whatever the order in which they are shown."""
    plan = planned(choice("a", "ab", "x"), choice("y", "n"), debias="cyclic")
    decode = ENGINE.tokenizer.decode
    texts = [decode(query.tokens) for query in plan.queries]
    listed = [text.split("word for word:\n")[1].split(END)[0] for text in texts]
    assert listed == [
        *[" a\n ab\n x"] * 3,
        *[" ab\n x\n a"] * 3,
        *[" x\n a\n ab"] * 3,
        *[" y\n n"] * 2,
        *[" n\n y"] * 2,
    ]
    scored = [decode(query.tokens[query.score_from :]) for query in plan.queries]
    assert scored == [*["a", "ab", "x"] * 3, *["y", "n"] * 2]


def test_a_scale_says_where_it_begins() -> None:
    """Turned around it says so, in front of the levels and not in what is asked."""
    scale = Question("score", None, (Option("lo"), Option("mid"), Option("hi")), "q")
    plan = planned(scale, debias="all")
    texts = list(dict.fromkeys(ENGINE.tokenizer.decode(q.tokens) for q in plan.queries))
    assert "word for word.\nFrom the lowest to the highest:\n lo\n mid\n hi" in texts[0]
    assert "word for word.\nFrom the highest to the lowest:\n hi\n mid\n lo" in texts[3]


def test_options_of_a_predicate_may_be_described() -> None:
    """What yes and no mean stands beside them; without instructions only the options speak."""
    told = Question("predicate", None, (Option("yes", "It is."), Option("no")), "q")
    (text, _) = (ENGINE.tokenizer.decode(query.tokens) for query in planned(told).queries)
    asked = "input.\nIs this true of the input? Answer with one of these, word for word:\n"
    assert f"{asked} yes: It is.\n no{END}" in text


@pytest.mark.parametrize("debias", ["none", "cyclic", "all"])
def test_the_usage_is_what_is_asked(debias: Debias) -> None:
    """What is asked counts once for all orders, a listing once an order, an option with its end."""
    plan = planned(choice("a", "ab", "x"), choice("only"), choice("y", "n"), debias=debias)
    prompts = {query.tokens[: query.score_from] for query in plan.queries}
    nodes = {prompt[:end] for prompt in prompts for end in range(1, len(prompt) + 1)}
    scored = [len(query.tokens) - query.score_from + 1 for query in plan.queries]
    assert plan.scored_tokens == sum(scored)
    # Prompts that share more than what is asked are fewer tokens still.
    assert len(nodes) <= plan.prompt_tokens <= sum(map(len, prompts))


def test_one_option_is_certain() -> None:
    """A lone option is answered with probability 1, in its one order."""
    plan = planned(choice("a"), debias="all")
    (decision,) = read_decisions(
        plan.plan, [LogprobResult(logprobs=(-1.5,), target_logprobs=(-0.5,))]
    )
    assert decision.probabilities == (1.0,)
    assert decision.logprobs == (-2.0,)
    assert (decision.best, decision.confidence, decision.mean_index) == (0, 1.0, 0.0)
    assert decision.orders is not None
    assert (decision.orders.count, decision.orders.flipped) == (1, False)


def test_errors_find_their_question() -> None:
    """The query with an index belongs to one question, over all its orders."""
    plan = planned(choice("a", "b", param="first"), choice("x", "y", param="second"), debias="all")
    params = [plan.plan.param(index) for index in range(8)]
    assert params == [*["first"] * 4, *["second"] * 4]


@pytest.mark.parametrize("same", ["a", " a", "a\n", "\ta "])
def test_options_that_look_alike_are_refused(same: str) -> None:
    """Spaces around a text do not make it another answer."""
    with pytest.raises(InvalidQuery, match="options 0 and 2 cannot be told apart") as refused:
        planned(choice("a", "x"), choice("a", "x", same, param="questions.team"))
    assert refused.value.param == "questions.team"


def test_unicode_forms_of_a_text_are_one_option() -> None:
    """A letter with an accent, and a letter and an accent."""
    with pytest.raises(InvalidQuery, match="cannot be told apart"):
        planned(choice("caf\u00e9", "cafe\u0301"))
    planned(choice("cafe", "caf\u00e9"))


def test_options_that_are_the_same_tokens_are_refused(tiny_folder: TinyFolder) -> None:
    """A tokenizer that reads capitals as small letters cannot tell them apart."""
    tokenizer = Tokenizer(_lower_cased(tiny_folder("llama")))
    question = choice("Tokyo", "tokyo")
    plan_decisions("it", [question], "none", Tokenizer.load(tiny_folder("llama")), ENGINE.info)
    with pytest.raises(InvalidQuery, match="options 0 and 1 cannot be told apart"):
        plan_decisions("it", [question], "none", tokenizer, ENGINE.info)


def _lower_cased(folder: Path) -> PreTrainedTokenizerFast:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


def test_paths_are_bounded_before_anything_is_tokenized(monkeypatch: pytest.MonkeyPatch) -> None:
    """The question with which they are too many is named."""
    monkeypatch.setattr(decision_plan, "encode_questions", None)
    wide = [choice(*map(str, range(255)), param=f"questions.{i}") for i in range(3)]
    with pytest.raises(InvalidQuery, match="195075 options in all their orders") as refused:
        planned(*wide, debias="cyclic")
    assert refused.value.param == "questions.2"


def test_tokens_are_bounded_before_paths_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing that is long costs much in all its orders; it is refused by its length alone."""
    monkeypatch.setattr(decision_plan, "MAX_PATH_TOKENS", 50_000)
    long = choice(*(f"{i} " + "x" * 40 for i in range(16)), param="questions.long")
    planned(choice("a", "b"), long)
    monkeypatch.setattr(decision_plan, "_queries", None)
    with pytest.raises(InvalidQuery, match="tokens; a request may have") as refused:
        planned(choice("a", "b"), long, debias="cyclic")
    assert refused.value.param == "questions.long"


def test_each_text_is_tokenized_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither more orders nor the same options in more questions make more of them."""
    seen: list[list[str]] = []
    encode = question_tokens.encode_in_chunks

    def counted(tokenizer: object, texts: list[str]) -> list[list[int]]:
        seen.append(list(texts))
        return encode(ENGINE.tokenizer, texts)

    monkeypatch.setattr(question_tokens, "encode_in_chunks", counted)
    planned(choice("a", "b", "x"))
    planned(*[choice("a", "b", "x")] * 5, debias="all")
    assert seen[0] == seen[1]
    texts = list(chain.from_iterable(seen[:1]))
    assert len(texts) == len(set(texts))
