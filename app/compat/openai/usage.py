"""What an answer says beside its choices: who answered, and what it cost."""

from __future__ import annotations

from typing import Any, Final

from app.compat.openai.plan import Plan
from app.compat.openai.response import (
    Completion,
    CompletionChoice,
    CompletionUsage,
    PromptTokensDetails,
)
from app.schemas.decode_response import DecodeResponse
from app.schemas.response import Usage
from app.scoring.token_paths import PathScores
from app.telemetry.request_facts import Facts

SPENT: Final = ("cached_tokens", "computed_tokens", "reused_scores")
"""What the parts of an answer have spent is what it has spent."""


class UsageCounter:
    """Adds up while an answer is put together.

    Args:
        scored: what was asked first.
        prompt_tokens: tokens of all prompts.
        needed: tokens that the model must have been fed for what was asked first.
        facts: what the access log is told of the request, up to date all the time.

    Attributes:
        completion_tokens: generated so far.
    """

    def __init__(
        self, scored: PathScores[Any], prompt_tokens: int, needed: int, facts: Facts
    ) -> None:
        self._facts = facts
        self.completion_tokens = 0
        self._scored_tokens = scored.usage.scored_tokens
        self._prompt_tokens = prompt_tokens
        # What rows were asked of was needed whole, and is in the cache for a search behind it.
        self._known = max(0, needed - scored.usage.computed_tokens) if needed else None
        self._cached = 0
        self._streamed = 0
        self._spent = dict.fromkeys(SPENT, 0)
        self._spend(scored.usage)

    def add(self, reply: DecodeResponse) -> None:
        """One prompt's search."""
        self.completion_tokens += sum(len(found.token_ids) for found in reply.sequences)
        usage = reply.usage
        self._cached += min(usage.prompt_tokens, usage.cached_tokens)
        self._spend(usage)

    def stream(self) -> None:
        """One token, of a search that is added once it has ended."""
        self._streamed += 1
        self._observe()

    def usage(self) -> CompletionUsage:
        """What it all cost."""
        self._observe()
        return CompletionUsage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self.completion_tokens,
            total_tokens=self._prompt_tokens + self.completion_tokens,
            prompt_tokens_details=PromptTokensDetails(
                cached_tokens=self._cached if self._known is None else self._known
            ),
        )

    def _spend(self, usage: Usage) -> None:
        for name in SPENT:
            self._spent[name] += getattr(usage, name)
        self._observe()

    def _observe(self) -> None:
        generated = max(self.completion_tokens, self._streamed)
        self._facts.update(
            prompt_tokens=self._prompt_tokens,
            scored_tokens=self._scored_tokens + generated,
            **self._spent,
        )


class CompletionBuilder(UsageCounter):
    """Puts a completions answer, or the pieces of one, around its choices.

    Args:
        scored: what was asked first; its id is the answer's.
        facts: what the access log is told of the request.
    """

    def __init__(self, scored: PathScores[Plan], facts: Facts) -> None:
        plan = scored.plan
        super().__init__(scored, sum(len(path.ids) for path in plan.paths), plan.needed, facts)
        self._scored = scored

    def response(self, choices: list[CompletionChoice]) -> Completion:
        """The whole answer."""
        return self._completion(choices, self.usage())

    def chunk(self, choice: CompletionChoice | None) -> Completion:
        """A piece of a stream; the one without a choice says what it all cost."""
        if choice is None:
            return self._completion([], self.usage())
        return self._completion([choice], None)

    def _completion(
        self, choices: list[CompletionChoice], usage: CompletionUsage | None
    ) -> Completion:
        scored = self._scored
        return Completion(
            id=f"cmpl-{scored.id}",
            created=scored.created,
            model=scored.model,
            system_fingerprint=scored.fingerprint,
            choices=choices,
            usage=usage,
        )
