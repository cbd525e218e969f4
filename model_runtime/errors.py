"""What the runtime raises. ``app.errors.table`` alone turns these names into statuses.

ChainruleError
├── InvalidQuery            the caller's fault; ``param`` names the field
│   ├── TokenIdOutOfRange
│   ├── PathTooLong         longer than the model's positions
│   ├── RequestTooLarge     could never fit the queue or the cache
│   ├── MissingExtra        asks for what an optional package does, and it is not installed
│   └── NothingFollows      a constraint came to allow nothing, so no completion was found
├── EngineOverloaded        the queue is full; ``retry_after_s``
├── DeadlineExceeded
├── EngineUnavailable
│   ├── EngineNotReady
│   ├── EngineStopping
│   └── EngineDied
│       └── EngineStalled   a forward hangs, or whatever else the model thread does
├── ForwardFailed           the forward raised for this request alone
│   ├── OutOfMemory
│   └── NonFiniteLogits
└── ModelLoadError          one line, fit for the last line of a start-up log
    ├── ModelNotFound
    ├── ModelFetchFailed
    ├── CorruptModel
    └── UnsupportedModel
"""

from __future__ import annotations

from copy import copy
from typing import Self


class ChainruleError(Exception):
    """Base of everything the runtime raises on purpose."""


class InvalidQuery(ChainruleError):
    """The query cannot be answered as it was put.

    As text it is ``param: reason``, or the reason alone where no one field is at fault.

    Attributes:
        reason: what is wrong, without the field's name.
        param: the field at fault, such as ``candidates.3``.
    """

    def __init__(self, reason: str, param: str | None = None) -> None:
        super().__init__(reason if param is None else f"{param}: {reason}")
        self.reason = reason
        self.param = param

    def at(self, param: str) -> Self:
        """The same error of another field: of the one that the caller knows it by."""
        return type(self)(self.reason, param)


class TokenIdOutOfRange(InvalidQuery):
    """An id outside ``0 <= id < vocab_size``."""


class PathTooLong(InvalidQuery):
    """A token path longer than the model can hold."""


class RequestTooLarge(InvalidQuery):
    """A request that the queue or the cache could never hold, however long it waited."""


class MissingExtra(InvalidQuery):
    """It needs an optional package that is not installed; the message names the extra."""


class NothingFollows(InvalidQuery):
    """A search found no completion: its constraint allows nothing more on any path."""


class EngineOverloaded(ChainruleError):
    """The queue is full. ``retry_after_s`` estimates when there is room, in seconds."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(ChainruleError):
    """The request's time ran out before it was answered."""


class EngineUnavailable(ChainruleError):
    """No work is taken now."""


class EngineNotReady(EngineUnavailable):
    """The model is still loading or warming up."""


class EngineStopping(EngineUnavailable):
    """The engine drains: what was admitted finishes, nothing new is taken."""


class EngineDied(EngineUnavailable):
    """The model thread ended. Nothing will be answered any more."""


class EngineStalled(EngineDied):
    """The model thread stands still and was given up. It is still there."""


class ForwardFailed(ChainruleError):
    """The forward failed, and went on failing when this request ran alone.

    Attributes:
        param: the field whose forward it was, such as ``questions.3``; None where nobody has said.
    """

    param: str | None = None

    def at(self, param: str) -> Self:
        """The same error, of this field."""
        named = copy(self)
        named.param = param
        return named


class OutOfMemory(ForwardFailed):
    """This request alone does not fit into memory.

    ``retry_after_s`` says when to try again, in seconds; None where nothing tells that it will fit
    by then.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NonFiniteLogits(ForwardFailed):
    """The model produced a NaN, or gave a scored token no probability at all."""


class ModelLoadError(ChainruleError):
    """The model cannot be served. The message is one line."""


class ModelNotFound(ModelLoadError):
    """No such folder, alias or hub id."""


class ModelFetchFailed(ModelLoadError):
    """The model could not be downloaded."""


class CorruptModel(ModelLoadError):
    """Files are missing, truncated, or have the wrong hash."""


class UnsupportedModel(ModelLoadError):
    """The architecture, or how it is stored, is not served; the message says why."""
