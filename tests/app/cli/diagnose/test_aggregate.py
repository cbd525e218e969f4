"""One verdict on many lines: an explanation must hold on each."""

from __future__ import annotations

from typing import Any

from app.cli.diagnose.aggregate import diagnose_file
from app.schemas.diagnosis import (
    Diagnosis,
    Explanation,
    FittingMistakes,
    MistakeName,
    Untried,
    Verdict,
)


def explanation(*names: MistakeName, span: tuple[float, float] | None = None) -> Explanation:
    return Explanation(
        mistakes=list(names),
        about="words",
        fits=True,
        estimate=None if span is None else sum(span) / 2,
        estimate_range=span,
        largest_difference=1e-6,
        tolerance=1e-5,
        candidate=0,
        chance=1e-4,
    )


def line(
    verdict: Verdict, *found: Explanation, unaffected: Any = (), untried: Any = ()
) -> Diagnosis:
    return Diagnosis(
        verdict=verdict,
        summary="",
        numbers=3,
        tried=9,
        explanations=list(found),
        unaffected=list(unaffected),
        untried=[Untried(mistakes=[name], reason="words") for name in untried],
    )


def test_lines_that_agree_agree() -> None:
    """All of them, and only then."""
    assert diagnose_file([line("agree")] * 3, 0).verdict == "agree"
    assert diagnose_file([line("agree")] * 3, 0).exit_status == 0
    found = diagnose_file([line("agree"), line("none")], 0)
    assert (found.verdict, found.agreeing, found.exit_status) == ("none", 1, 4)


def test_a_line_that_may_be_right_by_chance_refutes_nothing() -> None:
    """Beside lines that agree they agree; alone it says too little."""
    silent = line("undetermined").model_copy(update={"as_reported": explanation()})
    assert diagnose_file([line("agree"), silent], 0).verdict == "agree"
    alone = diagnose_file([silent, silent], 0)
    assert alone.verdict == "undetermined" and "by chance" in alone.summary
    found = diagnose_file([silent, line("explained", explanation("mean"))], 0)
    assert found.verdict == "explained"


def test_what_explains_each_line_explains_the_file() -> None:
    """What fits one line alone does not."""
    lines = [
        line("explained", explanation("mean"), explanation("base_2")),
        line("explained", explanation("mean")),
    ]
    found = diagnose_file(lines, 0)
    assert [one.mistakes for one in found.explanations] == [["mean"]]
    assert (found.verdict, found.explanations[0].lines, found.exit_status) == ("explained", 2, 3)
    other = diagnose_file([*lines, line("explained", explanation("base_10"))], 0)
    assert other.verdict == "none"
    assert other.partial[0].mistakes == ["mean"]
    assert "mean explains 2 of 3 lines" in other.summary


def test_a_line_that_a_mistake_leaves_alone_does_not_refute_it() -> None:
    """The mean of one token is its sum; where it would show, it does refute it."""
    mean = line("explained", explanation("mean"))
    assert diagnose_file([mean, line("agree", unaffected=["mean"])], 0).verdict == "explained"
    assert diagnose_file([mean, line("agree")], 0).verdict == "none"


def test_a_right_line_on_which_it_was_not_tried_is_counted() -> None:
    """It neither refutes the mistake nor is it explained; a wrong line does refute it."""
    wrong = line("explained", explanation("bos_added"))
    found = diagnose_file([wrong, line("agree", untried=["bos_added"])], 0)
    assert (found.verdict, found.explanations[0].unchecked) == ("explained", 1)
    assert "but 1 line where it was not tried" in found.summary
    assert diagnose_file([wrong, line("none", untried=["bos_added"])], 0).verdict == "none"


def test_of_a_pair_one_may_show_alone() -> None:
    """Where the other one changes nothing."""
    both = line("explained", explanation("mean", "base_2"))
    single = line("explained", explanation("base_2"), unaffected=["mean"])
    found = diagnose_file([both, single], 0)
    assert found.verdict == "explained"
    assert {*found.explanations[0].mistakes} == {"mean", "base_2"}
    assert diagnose_file([both, line("explained", explanation("base_2"))], 0).verdict == "none"


def test_what_a_line_shows_in_short_counts() -> None:
    """A mistake that is not among the first explanations of a line fits it all the same."""
    short = FittingMistakes(mistakes=["mean"], largest_difference=1e-6, chance=1e-4)
    full = line("explained", explanation("base_2"))
    many = full.model_copy(update={"also_fitting": [short]})
    found = diagnose_file([many, line("explained", explanation("mean"))], 0)
    assert (found.verdict, found.explanations[0].mistakes) == ("explained", ["mean"])
    assert found.explanations[0].about == "words"
    assert found.explanations[0].lines == 2


def test_estimates_have_to_agree() -> None:
    """One temperature for the whole file."""
    near = [
        line("explained", explanation("temperature", span=(0.69, 0.71))),
        line("explained", explanation("temperature", span=(0.7, 0.72))),
    ]
    found = diagnose_file(near, 0)
    assert found.verdict == "explained"
    assert found.explanations[0].estimate_range == (0.7, 0.71)
    far = line("explained", explanation("temperature", span=(0.9, 0.91)))
    assert diagnose_file([*near, far], 0).verdict == "none"


def test_lines_that_say_too_little_count_for_nothing() -> None:
    """They neither prove nor refute; where there are no others, they are taken together."""
    vague = line("undetermined", explanation("base_2"))
    found = diagnose_file([line("explained", explanation("mean")), vague], 0)
    assert (found.verdict, found.silent) == ("explained", 1)
    assert diagnose_file([vague, vague], 0).verdict == "explained"
    assert diagnose_file([line("none"), vague], 0).verdict == "none"
