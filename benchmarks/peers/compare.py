"""One task on both sides, run by run: seconds, and whether both computed the same thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.in_process import InProcess
from benchmarks.peers.ours import Ours
from benchmarks.peers.process import PeerFailed, PeerProcess
from benchmarks.peers.protocol import Answer
from benchmarks.peers.tasks import Task
from benchmarks.timing import median, product_peak

LARGEST_DIFFERENCE = 1e-2
"""Of two float32 sums, in nats: several times what 20 tokens differ by between libraries."""

FEWEST_EQUAL = 0.9
"""Share of float32 completions that must be equal: a near tie may go either way."""

COLUMNS = ("workload", "peer, s", "chainrule, s", "ratio", "of the product peak", "agreement")


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two sides' answers differ.

    Attributes:
        worst: the largest difference of two sums in nats; None where there are no sums.
        equal, completions: completions of the same tokens, and all of them.
    """

    worst: float | None
    equal: int
    completions: int

    @classmethod
    def of(cls, pairs: Sequence[tuple[Answer, Answer]]) -> Agreement:
        """Over all runs. Raises ``PeerFailed`` where the answers are not of the same shape."""
        for ours, theirs in pairs:
            if len(ours.scores) != len(theirs.scores) or len(ours.tokens) != len(theirs.tokens):
                raise PeerFailed("the two sides answered different numbers of questions")
        sums = [abs(a - b) for x, y in pairs for a, b in zip(x.scores, y.scores, strict=True)]
        same = [a == b for x, y in pairs for a, b in zip(x.tokens, y.tokens, strict=True)]
        # max() would pass over a NaN.
        worst = next((d for d in sums if d != d), max(sums, default=None))
        return cls(worst, sum(same), len(same))

    @property
    def exact(self) -> bool:
        """Whether two float32 sides can have computed this from the same model."""
        close = self.worst is None or self.worst < LARGEST_DIFFERENCE
        return close and self.equal >= FEWEST_EQUAL * self.completions

    def __str__(self) -> str:
        sums = [] if self.worst is None else [f"sums within {self.worst:.0e}"]
        same = [f"{self.equal} of {self.completions} completions"] if self.completions else []
        return ", ".join(sums + same)


def compare(
    task: Task, peer: PeerProcess, engine: InProcess, runs: int, must_agree: bool
) -> tuple[list[str], bool]:
    """The cells of the task's row, and whether they are a measurement.

    Run 0 warms both sides up. Then both take turns; the peer stands still in ours.
    """
    ours = Ours(engine)
    pairs = []
    for seed in range(runs + 1):
        salt = f"{task.name} {seed}"
        if task.before is not None:
            ours.ask(task.before(seed), salt)
            peer.ask(task.before(seed))
        request = task.request(seed)
        pairs.append((ours.ask(request, salt), peer.ask(request)))
    agreement = Agreement.of(pairs)
    if must_agree and not agreement.exact:
        return [task.name, "-", "-", "-", "-", f"**not the same work**: {agreement}"], False
    mine, theirs = (median([pair[side].seconds for pair in pairs[1:]]) for side in (0, 1))
    peak = product_peak()
    share = f"{task.gflop / mine / peak:.0%} of {peak:.0f} GFLOP/s"
    ratio = f"{theirs / mine:.2f}x"
    return [task.name, f"{theirs:.2f}", f"{mine:.2f}", ratio, share, str(agreement)], True
