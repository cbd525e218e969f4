"""Context and candidates as tokens, by the definition: whole texts, one at a time.

What scoring does has shortcuts for long lists; this has none, so that the two can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.requests.prompt import Prompt, parse_prompt
from app.requests.token_details import path_bytes
from app.requests.worker_threads import check_wanted
from app.schemas.audit import AuditRequest
from model_runtime import ModelInfo, Tokenizer

Path = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ReferenceTokens:
    """Where each candidate's tokens begin.

    Attributes:
        prefix: every candidate is conditional on these tokens.
        context: tokens of the context alone, what was put before it included.
        given: how many of them stand for what the caller wrote, counted from the end.
        paths: the scored tokens of each candidate, by index; without an appended end.
        contents: the bytes of each candidate alone, by index.
        characters: Unicode code points of each candidate alone, by index.
        textual: candidates that were given as text.
        text_context: the context was given as text.
    """

    prefix: Path
    context: Path
    given: int
    paths: Mapping[int, Path]
    contents: Mapping[int, bytes]
    characters: Mapping[int, int]
    textual: frozenset[int]
    text_context: bool

    def whole(self, index: int) -> Path:
        """All tokens that a candidate's score depends on."""
        return self.prefix + self.paths[index]

    @property
    def longest(self) -> int:
        """Scored tokens of the longest candidate."""
        return max(map(len, self.paths.values()))


def split(
    tokenizer: Tokenizer, info: ModelInfo, request: AuditRequest, good: Sequence[int]
) -> ReferenceTokens:
    """Tokenize the context, and it with each of the ``good`` candidates, which can be scored."""
    prompt = parse_prompt(tokenizer, info, request)
    content = prompt.content
    ids = tuple(tokenizer.encode(content) if isinstance(content, str) else content)
    head = _head(tokenizer, prompt, ids)
    given = {index: request.candidates[index] for index in good}
    wholes = {
        index: head + _behind(tokenizer, request, prompt, ids, candidate)
        for index, candidate in given.items()
    }
    context = head + ids
    least = min(_shared(whole, context) for whole in wholes.values())
    start = request.start_token or max(1, least)
    texts = {index: one for index, one in given.items() if isinstance(one, str)}
    contents = {
        index: one.encode() if isinstance(one, str) else path_bytes(tokenizer, one)
        for index, one in given.items()
    }
    return ReferenceTokens(
        prefix=context[:start],
        context=context,
        given=len(ids),
        paths={index: whole[start:] for index, whole in wholes.items()},
        contents=contents,
        characters={
            index: len(texts.get(index, content.decode(errors="replace")))
            for index, content in contents.items()
        },
        textual=frozenset(texts),
        text_context=isinstance(request.context, str),
    )


def _head(tokenizer: Tokenizer, prompt: Prompt, ids: Path) -> Path:
    """What stands before the context: the rule's tokens, BOS, the caller's own, or nothing."""
    if not prompt.add_bos and not ids and prompt.prefix_token_id is not None:
        return (prompt.prefix_token_id,)
    if prompt.add_bos is None:
        return tokenizer.prefix_ids if isinstance(prompt.content, str) or not ids else ()
    bos = tokenizer.bos_token_id
    return (bos,) if prompt.add_bos and bos is not None else ()


def _behind(
    tokenizer: Tokenizer,
    request: AuditRequest,
    prompt: Prompt,
    ids: Path,
    candidate: str | Sequence[int],
) -> Path:
    check_wanted()
    if not isinstance(candidate, str):
        return (*ids, *candidate)
    all_text = all(isinstance(one, str) for one in request.candidates)
    joint = request.boundary == "joint" or (request.boundary is None and all_text)
    if joint and isinstance(prompt.content, str):
        return tuple(tokenizer.encode(prompt.content + candidate))
    return (*ids, *tokenizer.encode(candidate))


def _shared(whole: Path, context: Path) -> int:
    pairs = enumerate(zip(whole, context, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(whole), len(context)))
