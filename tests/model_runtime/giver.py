"""The smallest search that can be interrupted."""

from __future__ import annotations

from tests.model_runtime.chain import Chain


class Giver(Chain):
    """A chain that gives what it was told so far, if it was told anything."""

    def __init__(self, prompt: tuple[int, ...], rounds: int) -> None:
        super().__init__(prompt, rounds)
        self.given_up = False

    def finish_early(self) -> bool:
        self.given_up = bool(self.told)
        return self.given_up
