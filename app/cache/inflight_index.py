"""The running calls that a request may join, found by what they ask."""

from __future__ import annotations

from collections.abc import Mapping

from app.cache.inflight_call import InflightCall

FEW = 1_000
"""Queries of a call that are listed one by one. The others are few and known as they are: to list
a hundred thousand digests, and to strike them out again, takes the event loop too long."""


class InflightIndex:
    """Lives on the event loop.

    Attributes:
        large: calls of more than ``FEW`` queries.
    """

    def __init__(self) -> None:
        self.large: list[InflightCall] = []
        self._by_digest: dict[bytes, InflightCall] = {}

    def __len__(self) -> int:
        """Queries that are being asked."""
        return len(self._by_digest) + sum(len(call.wanted) for call in self.large)

    def add(self, call: InflightCall) -> None:
        """Others may join it from now on."""
        if len(call.wanted) > FEW:
            self.large.append(call)
        else:
            self._by_digest.update(dict.fromkeys(call.wanted, call))

    def remove(self, call: InflightCall) -> None:
        """Nobody joins it any more; whoever waits goes on waiting."""
        if len(call.wanted) > FEW:
            self.large = [other for other in self.large if other is not call]
            return
        for digest in call.wanted:
            if self._by_digest.get(digest) is call:
                del self._by_digest[digest]

    def small(self, wanted: Mapping[bytes, object]) -> dict[bytes, InflightCall]:
        """Who of the others asks what of this."""
        # The intersection goes through the smaller one, in C.
        return {
            digest: self._by_digest[digest] for digest in self._by_digest.keys() & wanted.keys()
        }
