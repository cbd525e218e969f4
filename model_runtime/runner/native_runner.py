"""NativeModelRunner.run(batch): the same as ``ModelRunner``, through the native kernels.

Every product, norm, exponential and sum is a kernel of this package, whose bits follow from a row's
own path: not from its neighbours, the threads, the instruction set or the version of a library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from model_runtime.batching.batch import Batch, BatchOutput
from model_runtime.decoder.from_transformers import describe
from model_runtime.decoder.native_decoder import NativeDecoder
from model_runtime.decoder.native_head import NativeHead
from model_runtime.kernels.allocator import tune_malloc
from model_runtime.kv_cache.storage import KVShape, KVStorage
from model_runtime.loading.supported_models import check_supported
from model_runtime.logprobs.native_tile import reduce_natively
from model_runtime.logprobs.reduce import reduce_head_rows
from model_runtime.native.library import use_threads
from model_runtime.runner.row_layout import RowLayout


class NativeModelRunner:
    """A transformers causal LM in float32 on the CPU, and its KV storage.

    Attributes:
        slots: tokens that the KV storage holds.
        rows: rows keep their bits in any layout.
        frequencies: of the rotary positions, as bytes.
    """

    rows = RowLayout(batch_invariant=True)

    def __init__(self, model: PreTrainedModel, kv_bytes: int) -> None:
        """Take over a model, whose weights are copied and let go of.

        Args:
            model: in float32 on the CPU, loaded for ``ATTENTION_NAME``.
            kv_bytes: bounds the storage of keys and values.

        Raises:
            NotDescribed: the kernels do not know the model, which stays as it is.
            UnsupportedModel: no runner serves it.
        """
        check_supported(model)
        decoder = describe(model)
        tune_malloc()
        shape = KVShape.of(model.config.get_text_config(), torch.float32)
        self.slots = shape.slots_within(kv_bytes)
        use_threads(torch.get_num_threads())
        self._head = NativeHead(decoder)
        self._decoder = NativeDecoder(decoder, KVStorage(shape, self.slots, model.device))
        self.frequencies = self._decoder.frequencies
        self._progress: Callable[[], None] = lambda: None

    def report_to(self, progress: Callable[[], None]) -> None:
        """What to call from now on for every few layers and each tile of the head."""
        self._progress = progress

    @torch.inference_mode()
    def run(self, batch: Batch) -> BatchOutput:
        """Compute a batch."""
        x, bad = self._decoder.forward(batch, self._progress)
        rows = x.index_select(0, torch.tensor(batch.head_rows, dtype=torch.int64))
        head = self._head
        reduce_tile = partial(reduce_natively, softcap=head.softcap)
        output = reduce_head_rows(rows, self._logits, batch, head.vocab_size, reduce_tile)
        if bad is None:
            return output
        slots = frozenset(batch.slots[row] for row in bad.nonzero().flatten().tolist())
        return replace(output, bad_slots=slots)

    def _logits(self, x: Tensor) -> Tensor:
        self._progress()
        return self._head.logits(x)
