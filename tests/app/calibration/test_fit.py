"""A calibration as a whole: better on what it has not seen, and sets that keep their word."""

from __future__ import annotations

import math
import random
from operator import itemgetter
from types import SimpleNamespace

import pytest

from app.calibration.decision import NamedCalibration, find_calibration
from app.calibration.fit import choose_method, fit_questions
from app.calibration.folds import halves
from app.calibration.store import CalibrationStore
from app.decisions.question import Option, Question
from app.decisions.template import PROMPT_TEMPLATE
from app.errors.table import CalibrationMismatch
from app.schemas.calibration import Calibration, IsotonicMap, TemperatureMap
from model_runtime import InvalidQuery
from tests.app.calibration.labelled_decisions import calibration, drawn, skewed


def named(calibration: Calibration) -> NamedCalibration:
    """It, called c, for answers of that model without ``debias``."""
    store, info = CalibrationStore(None, {"c": calibration}), SimpleNamespace(fingerprint="f")
    found = find_calibration(store, "c", info, "none")  # type: ignore[arg-type]
    assert found is not None
    return found


def test_each_type_is_fitted_by_itself() -> None:
    """A model that is too sure of choices by 5, not sure enough of scores by a half."""
    decisions = drawn(1, 1_200, temperature=5.0) + drawn(2, 1_200, temperature=0.5, kind="score")
    random.Random(0).shuffle(decisions)
    found = fit_questions(decisions, "temperature", 0.1)
    assert found.predicate is None
    for fitted, planted in ((found.choice, 5.0), (found.score, 0.5)):
        assert fitted is not None and isinstance(fitted.map, TemperatureMap)
        assert fitted.map.temperature == pytest.approx(planted, rel=0.15)
        assert fitted.lines == 1_200
        assert fitted.after.nll < fitted.before.nll
        assert fitted.after.ece < 0.5 * fitted.before.ece
        assert fitted.after.brier < fitted.before.brier


def test_the_method_is_the_one_that_fits() -> None:
    """A factor is found by the temperature, a lean to yes by the curve; a request may insist."""
    sure = drawn(1, 400, temperature=5.0, options=lambda _: 2, kind="predicate")
    lean = skewed(1, 400)
    for decisions, kind in ((sure, TemperatureMap), (lean, IsotonicMap)):
        found = fit_questions(decisions, None, 0.1).predicate
        assert found is not None and isinstance(found.map, kind)
    forced = fit_questions(lean, "temperature", 0.1).predicate
    curved = fit_questions(lean, None, 0.1).predicate
    assert forced is not None and isinstance(forced.map, TemperatureMap)
    assert curved is not None and curved.after.nll < forced.after.nll < forced.before.nll


@pytest.mark.parametrize("swapped", [False, True])
def test_both_halves_are_reported_by_one_method(swapped: bool) -> None:
    """Where the halves would choose different ones, what is reported is of the one that is kept."""
    lean = skewed(1, 100)
    sure = drawn(1, 100, temperature=5.0, options=lambda _: 2, kind="predicate")
    parts = (sure, lean) if swapped else (lean, sure)
    first, second = halves(range(200))
    decisions = [
        one
        for _, one in sorted(
            zip(first + second, [*parts[0], *parts[1]], strict=True), key=itemgetter(0)
        )
    ]
    assert choose_method(halves(decisions)[0]) != choose_method(halves(decisions)[1])
    found = fit_questions(decisions, None, 0.1).predicate
    assert found is not None
    assert found == fit_questions(decisions, found.map.method, 0.1).predicate


def test_the_same_labels_give_the_same_calibration() -> None:
    """To the bit: nothing in it is drawn."""
    assert calibration(drawn(3, 60)) == calibration(drawn(3, 60))


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_sets_of_whole_calibrations_cover(method: str) -> None:
    """Over many sets of labels: the threshold's half has not been seen by the map, so coverage is
    1 - rate at least, and above it by 1 / (n + 1) at most, each within four standard errors."""
    rate, draws, fresh = 0.2, 60, 60
    hits = 0
    for seed in range(draws):
        fitted = fit_questions(drawn(seed, 40, temperature=4.0), method, rate)  # type: ignore[arg-type]
        apply = named(
            Calibration(
                model="toy",
                fingerprint="f",
                prompt_template=PROMPT_TEMPLATE,
                debias="none",
                error_rate=rate,
                questions=fitted,
            )
        )
        for one in drawn(10_000 + seed, fresh, temperature=4.0):
            hits += one.right in apply.calibrate(one.kind, one.logprobs).chosen
    spread = math.sqrt(rate * (1 - rate) * (1 / 22 + 1 / fresh) / draws)
    coverage = hits / (draws * fresh)
    assert 1 - rate - 4 * spread <= coverage <= 1 - rate + 1 / 21 + 4 * spread


def test_what_is_reported_of_sets_is_what_they_do() -> None:
    """Sizes and abstentions on decisions that nobody has seen are near those that are told."""
    found = calibration(drawn(5, 2_000, temperature=3.0))
    apply, choice = named(found), found.questions.choice
    assert choice is not None
    answers = [apply.calibrate("choice", one.logprobs) for one in drawn(6, 1_000, temperature=3.0)]
    assert sum(len(one.chosen) for one in answers) / 1_000 == pytest.approx(
        choice.set_size, abs=0.2
    )
    assert sum(one.abstain for one in answers) / 1_000 == pytest.approx(choice.abstained, abs=0.08)
    assert {len(one.chosen) == 1 for one in answers} == {True, False}
    for one in answers:
        assert math.fsum(one.probabilities) == pytest.approx(1, abs=1e-12)
        assert one.abstain is (len(one.chosen) != 1)
        assert all(
            (share >= choice.threshold) is (index in one.chosen)
            for index, share in enumerate(one.probabilities)
        )


def test_too_few_are_refused_by_type() -> None:
    """A rate of 0.05 takes 38 of each type that there is."""
    few = drawn(1, 60) + drawn(1, 37, kind="score")
    with pytest.raises(InvalidQuery, match=r"37 of type score are too few.* takes 38 ") as refused:
        fit_questions(few, None, 0.05)
    assert refused.value.param == "lines"
    fit_questions(few, None, 0.06)


@pytest.mark.parametrize("field", ["fingerprint", "prompt_template", "debias"])
def test_a_calibration_of_something_else_is_refused(field: str) -> None:
    """By name, with both values."""
    other = calibration(drawn(1, 40), **{field: "all"})
    with pytest.raises(
        CalibrationMismatch, match=f"'c' is of another {field}: all; here it is "
    ) as refused:
        named(other)
    assert refused.value.param == "calibration"


def test_a_type_that_was_not_fitted_is_refused() -> None:
    """By the field of the question."""
    apply = named(calibration(drawn(1, 40)))
    options = (Option("a"), Option("b"))
    choice, score = Question("choice", None, options, "x"), Question("score", None, options, "y")
    apply.check_questions([choice])
    with pytest.raises(InvalidQuery, match="'c' was fitted to no question of type score") as error:
        apply.check_questions([choice, score])
    assert error.value.param == "y"


def test_no_name_adds_nothing() -> None:
    """And asks for no calibration."""
    info = SimpleNamespace(fingerprint="f")
    assert find_calibration(CalibrationStore(), None, info, "none") is None  # type: ignore[arg-type]
