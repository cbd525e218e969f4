"""Completions limited to a closed set of candidates: a trie of their token ids, walked in step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from model_runtime.errors import InvalidQuery
from model_runtime.token_set import TokenSet


class _Node:
    """A path that begins some candidate.

    Attributes:
        children: what may follow it, by token id.
        candidates: indices of the candidates that are this path.
    """

    __slots__ = ("candidates", "children")

    def __init__(self) -> None:
        self.children: dict[int, _Node] = {}
        self.candidates: tuple[int, ...] = ()


class ClosedSet:
    """The candidates behind the tokens generated so far. A ``Constraint``.

    Equal candidates are one completion. A candidate is finished

    ===== ==============================================================================
    end
    ===== ==============================================================================
    True  by an end token, which counts in its log-probability: what it is compared by
    False with its last token. Where it begins a longer candidate, greedy search ends
          with it, since it always beats the longer one; other searches take it as a
          completion and also go on to the longer one
    ===== ==============================================================================

    A path that ``max_tokens`` cuts short is no candidate; it is reported with
    ``FinishReason.LENGTH`` as everywhere. Let ``max_tokens`` be the length of the longest
    candidate, with its end token, and none is cut.

    The trie is built once, in time and memory of the candidates' ids, and shared by all states.

    Args:
        paths: token ids of each candidate, at least one, none of them an end token.
        vocab_size: rows of the model's head.
        end: see above.

    Raises:
        InvalidQuery: there is no candidate, or one is empty or has an id that is none.
    """

    __slots__ = ("_node", "_root", "end", "vocab_size")

    def __init__(self, paths: Iterable[Sequence[int]], vocab_size: int, *, end: bool) -> None:
        self.vocab_size = vocab_size
        self.end = end
        self._root = _Node()
        for index, path in enumerate(paths):
            _check_path(index, path, vocab_size)
            self._insert(index, path)
        if not self._root.children:
            raise InvalidQuery("a closed set needs at least one candidate", param="candidates")
        self._node = self._root

    @property
    def allowed(self) -> TokenSet:
        """The tokens that go on to some candidate."""
        return TokenSet.of(self._node.children, self.vocab_size)

    @property
    def may_end(self) -> bool:
        """Whether the tokens so far are a candidate that an end token finishes."""
        return self.end and bool(self._node.candidates)

    @property
    def complete(self) -> bool:
        """Whether the tokens so far are a candidate, finished as it is."""
        return not self.end and bool(self._node.candidates)

    @property
    def candidates(self) -> tuple[int, ...]:
        """Indices of the candidates that are just the tokens so far, ascending."""
        return self._node.candidates

    @property
    def size_words(self) -> int:
        """About the 8-byte words of memory that this state takes; the trie is shared."""
        return 10

    def push(self, token_id: int) -> ClosedSet:
        """The state after one more token. Constant time.

        Raises:
            ValueError: no candidate goes on with this token.
        """
        node = self._node.children.get(token_id)
        if node is None:
            raise ValueError(f"no candidate goes on with token {token_id}")
        return self._at(node)

    def index_of(self, path: Sequence[int]) -> int | None:
        """The first candidate that is exactly ``path``, without an end token; None for none."""
        node: _Node | None = self._root
        for token_id in path:
            node = node.children.get(token_id) if node is not None else None
        return node.candidates[0] if node is not None and node.candidates else None

    def _at(self, node: _Node) -> ClosedSet:
        state = object.__new__(ClosedSet)
        state.vocab_size, state.end = self.vocab_size, self.end
        state._root, state._node = self._root, node
        return state

    def _insert(self, index: int, path: Sequence[int]) -> None:
        node = self._root
        for token_id in path:
            child = node.children.get(token_id)
            if child is None:
                child = node.children[token_id] = _Node()
            node = child
        node.candidates = (*node.candidates, index)


def _check_path(index: int, path: Sequence[int], vocab_size: int) -> None:
    param = f"candidates.{index}"
    if not path:
        raise InvalidQuery("it has no token", param=param)
    if min(path) < 0 or max(path) >= vocab_size:
        message = f"it has a token id outside 0 .. {vocab_size - 1}"
        raise InvalidQuery(message, param=param)
