"""What load is to be made: everything that a sending process needs to know."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from app.cli.bench.request_bodies import SHAPES
from app.cli.bench.workload import Questions, Workload


@dataclass(frozen=True, slots=True)
class Load:
    """One run at one rate.

    Attributes:
        url: of the route, whole.
        headers: sent with every request.
        shape: a name of ``SHAPES``.
        workload: what its questions are like.
        bodies: sent one after the other, over and over, instead of made-up questions.
        rate: arrivals a second of all processes together.
        warmup_s: seconds at this rate before anything counts.
        duration_s: seconds that count.
        processes: that send.
        connections: requests on their way at most, of all processes together.
        timeout_s: after which an answer is not waited for any longer, from when it was sent.
        seed: of times and questions.
    """

    url: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    shape: str = "score"
    workload: Workload = field(default_factory=Workload)
    bodies: tuple[bytes, ...] = ()
    rate: float = 1.0
    warmup_s: float = 0.0
    duration_s: float = 10.0
    processes: int = 1
    connections: int = 256
    timeout_s: float = 60.0
    seed: int = 0

    @property
    def end_s(self) -> float:
        """Seconds after the start at which the last arrival is due."""
        return self.warmup_s + self.duration_s

    def share(self, process: int) -> int:
        """How many connections one process may hold: at least one."""
        each, rest = divmod(self.connections, self.processes)
        return max(1, each + (process < rest))

    def arrivals(self, process: int) -> Iterator[tuple[float, bytes]]:
        """When each request of a process is due, in seconds after the start, and its body.

        Independent Poisson processes of ``rate / processes`` each are together one of ``rate``.
        """
        bodies = self._bodies(process)
        source = random.Random(f"{self.seed} {self.rate} {process}")
        due = source.expovariate(self.rate / self.processes)
        while due < self.end_s:
            yield due, next(bodies)
            due += source.expovariate(self.rate / self.processes)

    def _bodies(self, process: int) -> Iterator[bytes]:
        place = process
        while self.bodies:
            yield self.bodies[place % len(self.bodies)]
            place += self.processes
        own = f"{self.seed} {self.rate} {process}"
        questions = Questions(self.workload, own, contexts_seed=str(self.seed))
        shape = SHAPES[self.shape]
        while True:
            yield json.dumps(shape.of(questions.next(), self.workload)).encode()
