"""What must be so after thousands of mixed requests."""

from __future__ import annotations

from dataclasses import dataclass

from tests.soak.abuse import EXPECTED
from tests.soak.checks import KIB, MIB, Check, memory_check, words
from tests.soak.mixed import SAMPLE_EVERY, Seen
from tests.soak.process import Held
from tests.soak.questions import KINDS
from tests.soak.trend import Trend, trend

MEASURED, LEAKING = 1, 2
"""Parts of the run, counted from 0."""

MORE_THREADS = 4
"""Threads of pools that may begin late; each pool has fewer than so many."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """None asks for nothing, where there are too few requests to tell.

    Attributes:
        memory: bytes that a request may leave allocated, at most.
        resident: bytes by which a request may raise what is resident, at most.
        full: whether the prefix cache must be full before.
        refused: of the well-behaved requests, that a full queue refuses at most.
        every_kind: whether each kind of request must have come.
    """

    memory: float = 4 * KIB
    resident: float = 4 * KIB
    full: bool = True
    refused: float = 0.25
    every_kind: bool = True


def checks(seen: Seen, bounds: Bounds) -> list[Check]:
    """The figures and whether they are in bounds."""
    return [*_answers(seen, bounds), *_held(seen), *_memory(seen, bounds)]


def _answers(seen: Seen, bounds: Bounds) -> list[Check]:
    come = {kind for kind, _ in seen.outcomes}
    missing = {*EXPECTED, *(kind.name for kind in KINDS)} - come
    count = sum(seen.outcomes.values())
    abusive = sum(number for (kind, _), number in seen.outcomes.items() if kind in EXPECTED)
    refused = seen.share("429")
    return [
        Check("requests", f"{count}, {abusive / count:.0%} of them abusive"),
        Check(
            "kinds that did not come",
            words(sorted(missing)),
            "none" if bounds.every_kind else "",
            not (bounds.every_kind and missing),
        ),
        Check("other answers than expected", words(seen.faults), "none", not seen.faults),
        Check("answers compared by bits", f"{seen.known}", "some", seen.known > 0),
        Check(
            "well-behaved refused by a full queue",
            f"{refused:.1%}",
            f"at most {bounds.refused:.0%}",
            refused <= bounds.refused,
        ),
        Check("errors in the log", words(seen.complaints), "none", not seen.complaints),
    ]


def _held(seen: Seen) -> list[Check]:
    if seen.before is None or seen.after is None:
        raise ValueError("the run did not come to its end")
    slack = {"threads": MORE_THREADS}
    found = []
    for name in Held.__slots__:
        before, after = getattr(seen.before, name), getattr(seen.after, name)
        more = slack.get(name, 0)
        bound = f"at most {before + more:g}"
        found.append(Check(f"{name} at rest", f"{after:g}", bound, after <= before + more))
    return found


def _memory(seen: Seen, bounds: Bounds) -> list[Check]:
    slots, used = seen.slots
    full = used >= 0.9 * slots
    warm_up, measured, _ = seen.resident
    seconds = f"{SAMPLE_EVERY * len(measured) / seen.seconds:.0f}"
    return [
        Check("requests/s", seconds),
        Check(
            "prefix cache before",
            f"{used / slots:.0%} full",
            "at least 90 %" if bounds.full else "",
            full or not bounds.full,
        ),
        Check("resident in the warm-up, MiB", _quarters(warm_up)),
        Check("resident, MiB", _quarters(measured)),
        memory_check("resident more for a request", trend(measured), bounds.resident),
        Check("allocated, MiB", _quarters(seen.memory[MEASURED])),
        memory_check("left allocated by a request", seen.trend(MEASURED), bounds.memory),
        _leak_check(seen.trend(LEAKING), bounds),
    ]


def _quarters(memory: list[tuple[float, float]]) -> str:
    places = [quarter * (len(memory) - 1) // 4 for quarter in range(5)]
    return ", ".join(f"{memory[place][1] / MIB:.0f}" for place in places)


def _leak_check(memory: Trend, bounds: Bounds) -> Check:
    """That ``memory_check`` fails, as it must where a leak was planted."""
    found = memory_check("the same with a planted leak", memory, bounds.memory)
    return Check(found.figure, found.measured, f"not {found.bound}", not found.holds)
