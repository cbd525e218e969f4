"""The flights that a request may join, found by what they ask."""

from __future__ import annotations

from collections.abc import Mapping

from app.cache.inflight_call import Flight

FEW = 1_000
"""Queries of a flight that are listed one by one. The others are few and known as they are: to list
a hundred thousand digests, and to strike them out again, takes the event loop too long."""


class FlightIndex:
    """Lives on the event loop.

    Attributes:
        large: flights of more than ``FEW`` queries.
    """

    def __init__(self) -> None:
        self.large: list[Flight] = []
        self._by_digest: dict[bytes, Flight] = {}

    def __len__(self) -> int:
        """Queries that are being asked."""
        return len(self._by_digest) + sum(len(flight.wanted) for flight in self.large)

    def add(self, flight: Flight) -> None:
        """Others may join it from now on."""
        if len(flight.wanted) > FEW:
            self.large.append(flight)
        else:
            self._by_digest.update(dict.fromkeys(flight.wanted, flight))

    def remove(self, flight: Flight) -> None:
        """Nobody joins it any more; whoever waits goes on waiting."""
        if len(flight.wanted) > FEW:
            self.large = [other for other in self.large if other is not flight]
            return
        for digest in flight.wanted:
            if self._by_digest.get(digest) is flight:
                del self._by_digest[digest]

    def small(self, wanted: Mapping[bytes, object]) -> dict[bytes, Flight]:
        """Who of the others asks what of this."""
        # The intersection goes through the smaller one, in C.
        return {
            digest: self._by_digest[digest] for digest in self._by_digest.keys() & wanted.keys()
        }
