"""The token paths that another system may have fed to the model in place of the right ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from app.audit.evidence import Evidence
from app.requests.prompt import parse_prompt
from app.requests.worker_threads import check_wanted
from app.schemas.diagnosis import MistakeName
from app.schemas.request import Message
from model_runtime import (
    Boundary,
    InvalidQuery,
    JoinedCandidate,
    ModelInfo,
    Tokenizer,
    common_prefix,
    join,
)

LENGTHS = (
    *(8, 16, 32, 64, 128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192),
    *(16_384, 32_768, 65_536, 131_072),
)
"""Lengths that inputs are commonly cut to."""


@dataclass(frozen=True, slots=True)
class ScoredPath:
    """One candidate behind its context.

    Attributes:
        tokens: the whole path, without an end.
        start: position of the first scored token, at least 1.
    """

    tokens: tuple[int, ...]
    start: int


@dataclass(frozen=True, slots=True)
class ModelInput:
    """All candidates, each as it was put before the model.

    Attributes:
        mistake: what is wrong with it; None for the request's own.
        about: the same in words.
        paths: by index of the request's candidates; None for one that has none.
        length: what it was cut to, in tokens; None where it was not.
        beside: what was done wrong before that; None where it is the only mistake.
    """

    mistake: MistakeName | None
    about: str
    paths: tuple[ScoredPath | None, ...]
    length: int | None = None
    beside: ModelInput | None = None

    @property
    def parts(self) -> tuple[ModelInput, ...]:
        """What is wrong with it, one thing each; none of the request's own."""
        one = () if self.mistake is None else (self,)
        return one if self.beside is None else (*self.beside.parts, *one)


@dataclass(frozen=True, slots=True)
class OtherInputs:
    """What else may have been fed.

    Attributes:
        inputs: with one mistake each, each once.
        unchanged: mistakes that leave the request's own input as it is.
        unformed: mistakes of which no input could be made.
    """

    inputs: list[ModelInput]
    unchanged: frozenset[MistakeName]
    unformed: frozenset[MistakeName]


def own_input(evidence: Evidence) -> ModelInput:
    """As the audit itself scores them."""
    start, is_ended = evidence.scores.boundary.start_token, evidence.request.append_eos
    before = evidence.before[:start]
    paths: list[ScoredPath | None] = []
    for one in evidence.scores.results:
        ids = tuple(token.id for token in one.tokens or ())
        scored = ids[: len(ids) - is_ended]
        paths.append(None if one.error is not None else ScoredPath((*before, *scored), start))
    return ModelInput(None, "", tuple(paths))


def other_inputs(
    tokenizer: Tokenizer, info: ModelInfo, evidence: Evidence, own: ModelInput
) -> OtherInputs:
    """What else may have been fed; what equals another one is left out."""
    maker = InputMaker(tokenizer, info, evidence, own)
    seen = {own.paths}
    found: list[ModelInput] = []
    unchanged, unformed = set(maker.without_object()), set[MistakeName]()
    for one in maker.all():
        check_wanted()
        if one.mistake is None:
            continue
        if not any(path is not None for path in one.paths):
            unformed.add(one.mistake)
        elif one.paths == own.paths:
            unchanged.add(one.mistake)
        elif one.paths not in seen:
            seen.add(one.paths)
            found.append(one)
    return OtherInputs(found, frozenset(unchanged), frozenset(unformed))


def new_tokens(own: ModelInput, other: ModelInput) -> int:
    """Tokens that the model is fed for an input beyond those of the request's own, about."""
    known = [path.tokens for path in own.paths if path is not None]
    fed = 0
    for tokens in sorted(path.tokens for path in other.paths if path is not None):
        fed += len(tokens) - max(common_prefix(tokens, one) for one in known)
        known = [*known[:1], tokens]
    return fed


class InputMaker:
    """Makes other inputs of one.

    Args:
        tokenizer: of the model.
        info: what is served.
        evidence: of the audit.
        own: the input that is changed.
    """

    def __init__(
        self, tokenizer: Tokenizer, info: ModelInfo, evidence: Evidence, own: ModelInput
    ) -> None:
        self._tokenizer = tokenizer
        self._info = info
        self._evidence = evidence
        self._request = evidence.request
        self.own = own
        self._content: str | Sequence[int] = evidence.prompt.content
        self._scored = [index for index, path in enumerate(own.paths) if path is not None]
        given = evidence.request.candidates
        self._texts = {i: text for i in self._scored if isinstance(text := given[i], str)}
        self._all_text = len(self._texts) == len(self._scored)

    def all(self) -> Iterator[ModelInput]:
        yield from self.beginnings()
        yield from self.splits()
        yield from self.spaces()
        yield from (made for made, _ in self.contents())
        yield from self.cuts()

    def without_object(self) -> Iterator[MistakeName]:
        """Mistakes that find nothing here that they could change."""
        if not self._head:
            yield from ("bos_missing", "bos_doubled", "bos_added")
        elif self._begins_with_head:
            yield "bos_added"
        else:
            yield from ("bos_missing", "bos_doubled")
        if self._all_text:
            spaced = [text.startswith(" ") for text in self._texts.values()]
            if not any(spaced):
                yield "space_missing"
            if all(spaced):
                yield "space_added"
        context = self._request.context
        if isinstance(context, str):
            yield "template_missing"
        elif any(isinstance(turn, Message) for turn in context):
            yield "template_added"

    def upon(self, own: ModelInput, content: str | Sequence[int] | None = None) -> InputMaker:
        """Changes of another input, or of the request's with another context."""
        other = InputMaker(self._tokenizer, self._info, self._evidence, own)
        if content is not None:
            other._content = content
        return other

    @property
    def _head(self) -> tuple[int, ...]:
        """What a tokenizer puts before a text, or might."""
        bos = self._tokenizer.bos_token_id
        return self._tokenizer.prefix_ids or (() if bos is None else (bos,))

    @property
    def _begins_with_head(self) -> bool:
        head, paths = self._head, [path for path in self.own.paths if path is not None]
        return bool(head) and all(path.tokens[: len(head)] == head for path in paths)

    def beginnings(self) -> Iterator[ModelInput]:
        head = self._head
        if not head:
            return
        name = repr("".join(map(self._tokenizer.token_text, head)))
        if not self._begins_with_head:
            yield self._with("bos_added", f"{name} was put first", lambda p: _behind(head, p))
            return
        yield self._with("bos_missing", f"{name} is missing", lambda p: _without(len(head), p))
        yield self._with("bos_doubled", f"{name} stands there twice", lambda p: _behind(head, p))

    def splits(self) -> Iterator[ModelInput]:
        content, texts = self._content, self._texts
        if self._evidence.scores.boundary.policy == "joint":
            about = "candidates were tokenized apart from the context"
            yield self._joined("other_split", about, content, texts, Boundary.SEPARATE)
        elif isinstance(content, str) and self._all_text:
            about = "context and candidate were tokenized as one text"
            yield self._joined("other_split", about, content, texts, Boundary.JOINT)
        spaced = all(text.startswith(" ") and len(text) > 1 for text in texts.values())
        if isinstance(content, str) and self._all_text and spaced:
            about = "the space before the candidates was tokenized with the context"
            moved = {index: text[1:] for index, text in texts.items()}
            yield self._joined("other_split", about, content + " ", moved, Boundary.SEPARATE)

    def spaces(self) -> Iterator[ModelInput]:
        content = self._content
        without = {i: text[1:] for i, text in self._texts.items() if len(text.lstrip()) > 0}
        spaced = {i for i, text in self._texts.items() if text.startswith(" ")}
        changed = {i: without[i] for i in spaced if without.get(i)}
        if changed:
            about = "candidates were scored without the space before them"
            texts = {**self._texts, **changed}
            yield self._joined("space_missing", about, content, texts)
            about += ", and tokenized apart from the context"
            yield self._joined("space_missing", about, content, texts, Boundary.SEPARATE)
        bare = {i: f" {text}" for i, text in self._texts.items() if i not in spaced}
        if bare:
            about = "candidates were scored with a space before them"
            yield self._joined("space_added", about, content, {**self._texts, **bare})

    def contents(self) -> Iterator[tuple[ModelInput, str | Sequence[int]]]:
        """With or without the chat template, and the context that is."""
        context = self._request.context
        if isinstance(context, str):
            try:
                changed = self._request.model_copy(
                    update={"context": [Message(role="user", content=context)], "add_bos": None}
                )
                prompt = parse_prompt(self._tokenizer, self._info, changed)
            except InvalidQuery:
                return
            about = "the context was put into the chat template, as the user's message"
            made = self._joined("template_added", about, prompt.content, self._texts)
            yield made, prompt.content
            return
        contents = [turn.content for turn in context if isinstance(turn, Message)]
        if contents:
            about = "the messages were joined with line breaks, without the chat template"
            lines = "\n".join(contents)
            yield self._joined("template_missing", about, lines, self._texts), lines
            about = "the last message was given as it is, without the chat template"
            last = contents[-1]
            yield self._joined("template_missing", about, last, self._texts), last

    def cuts(self) -> Iterator[ModelInput]:
        head = self._head if self._begins_with_head else ()
        longest = max(len(path.tokens) for path in self.own.paths if path is not None)
        for length in LENGTHS:
            if length >= longest:
                return
            yield self._shortened(
                f"only the last {length} tokens of the context were fed",
                length,
                partial(_last_of_context, length=length),
            )
            yield self._shortened(
                f"only the first {length} tokens of the context were fed",
                length,
                partial(_first_of_context, length=length),
            )
            # Whoever feeds so many tokens may cut the whole to one more: the last is not fed.
            for kept in (length, length + 1):
                yield self._shortened(
                    f"only the last {kept} tokens of context and candidate were kept",
                    kept,
                    partial(_last_of_all, length=kept),
                )
            if head:
                yield self._shortened(
                    f"the context was cut to {length} tokens, its beginning token kept",
                    length,
                    partial(_kept_head, head=head, length=length),
                )

    def _shortened(
        self, about: str, length: int, change: Callable[[ScoredPath], ScoredPath | None]
    ) -> ModelInput:
        made = self._with("truncated", about, change)
        return ModelInput(made.mistake, made.about, made.paths, length)

    def _with(
        self,
        mistake: MistakeName,
        about: str,
        change: Callable[[ScoredPath], ScoredPath | None],
    ) -> ModelInput:
        """Every path changed alike; none where one of them cannot be."""
        paths = tuple(path and change(path) for path in self.own.paths)
        is_whole = all(paths[index] is not None for index in self._scored)
        return ModelInput(mistake, about, paths if is_whole else (None,) * len(paths))

    def _joined(
        self,
        mistake: MistakeName,
        about: str,
        content: str | Sequence[int],
        texts: dict[int, str],
        boundary: Boundary | None = None,
    ) -> ModelInput:
        """Another context or other candidates, joined as the request's are unless told otherwise;
        without paths where that cannot be done."""
        given = self._request.candidates
        candidates = [texts.get(index, given[index]) for index in self._scored]
        none = ModelInput(mistake, about, (None,) * len(given))
        own = Boundary(self._evidence.scores.boundary.policy)
        wanted = boundary or (own if isinstance(content, str) else Boundary.SEPARATE)
        if wanted is Boundary.JOINT and not self._all_text:
            wanted = Boundary.SEPARATE
        # What messages begin with, their template says; a text is begun as the request asks.
        add_bos = self._request.add_bos if isinstance(content, str) else None
        if content == self._evidence.prompt.content:
            add_bos = self._evidence.prompt.add_bos
        try:
            joined = join(
                self._tokenizer,
                content,
                candidates,
                boundary=wanted,
                add_bos=add_bos,
                prefix_token_id=self._evidence.prompt.prefix_token_id,
                check=check_wanted,
            )
        except InvalidQuery:
            return none
        paths: list[ScoredPath | None] = [None] * len(given)
        for index, one in zip(self._scored, joined.candidates, strict=True):
            if not isinstance(one, JoinedCandidate):
                return none
            paths[index] = ScoredPath((*joined.prefix, *one.token_ids), len(joined.prefix))
        return ModelInput(mistake, about, tuple(paths))


def _behind(head: tuple[int, ...], path: ScoredPath) -> ScoredPath:
    return ScoredPath((*head, *path.tokens), path.start + len(head))


def _without(count: int, path: ScoredPath) -> ScoredPath | None:
    return ScoredPath(path.tokens[count:], path.start - count) if path.start > count else None


def _last_of_context(path: ScoredPath, length: int) -> ScoredPath | None:
    return _without(path.start - length, path) if path.start > length else None


def _first_of_context(path: ScoredPath, length: int) -> ScoredPath | None:
    if path.start <= length:
        return None
    return ScoredPath((*path.tokens[:length], *path.tokens[path.start :]), length)


def _last_of_all(path: ScoredPath, length: int) -> ScoredPath | None:
    """A path that is short enough stays as it is."""
    lost = len(path.tokens) - length
    return path if lost <= 0 else _without(lost, path)


def _kept_head(path: ScoredPath, head: tuple[int, ...], length: int) -> ScoredPath | None:
    if path.start <= length or length <= len(head):
        return None
    kept = path.tokens[path.start - (length - len(head)) :]
    return ScoredPath((*head, *kept), length)
