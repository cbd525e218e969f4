"""What is one finding, and what are several."""

from __future__ import annotations

from app.audit.diagnosis.comparison import Comparison
from app.audit.diagnosis.mistakes import Mistake
from app.audit.diagnosis.recipe import Recipe
from app.audit.diagnosis.rows import PathRows, Row
from app.audit.diagnosis.search import Search
from app.schemas.reported import Reported


def truncated(side: str, length: int, source: int) -> Mistake:
    about = f"only the {side} {length} tokens of the context were fed"
    return Mistake("truncated", about, {"source": source}, float(length))


def rows(*logprobs: float) -> tuple[PathRows | None, ...]:
    """Candidates of one token each, behind a context of one."""
    found = [Row({0: one}, None, 0.0, (), ()) for one in logprobs]
    return tuple(PathRows(1, 2, {1: row}, None, 1, 1) for row in found)


def test_different_mistakes_of_one_name_are_all_found() -> None:
    """Cut on either side: of each side the length that comes nearest."""
    inputs = [rows(-1.0, -2.0), *[rows(-3.5, -4.5), rows(-3.0, -4.0)] * 2]
    search = Search(
        Comparison(Reported(totals=[-3.5, -4.5]), [0, 1], (1e-6, 1e-7)), Recipe(), inputs
    )
    cuts = [("last", 16), ("last", 32), ("first", 16), ("first", 32)]
    found = search.alone(
        [truncated(side, length, place + 1) for place, (side, length) in enumerate(cuts)]
    )
    assert [one.mistakes[0].about.split()[2] for one in found] == ["last", "first"]
    assert [(one.fit.fits, one.estimate, one.varies) for one in found] == [(True, 16.0, True)] * 2
