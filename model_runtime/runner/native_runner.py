"""NativeModelRunner.run(batch): the same as ``ModelRunner``, through the native kernels.

In float32 every product, norm, exponential and sum is a kernel of this package, whose bits follow
from a row's own path: not from its neighbours, the threads, the instruction set or the version of a
library. In bfloat16 the decoder's products are oneDNN's, in the layout that keeps a row's bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from model_runtime.batching.batch import Batch, BatchOutput
from model_runtime.decoder.description import Linear
from model_runtime.decoder.from_transformers import describe
from model_runtime.decoder.native_decoder import NativeDecoder
from model_runtime.decoder.native_head import NativeHead
from model_runtime.decoder.weights import BFloat16Linear, NativeLinear
from model_runtime.kernels.allocator import tune_malloc
from model_runtime.kernels.linear import check_products
from model_runtime.kernels.threads import ThreadLimiter
from model_runtime.kv_cache.storage import KVShape, KVStorage
from model_runtime.loading.supported_models import check_supported
from model_runtime.logprobs.native_tile import reduce_natively
from model_runtime.logprobs.reduce import NATIVE_TILE_BYTES, reduce_head_rows, rows_of
from model_runtime.native.library import use_threads
from model_runtime.runner.row_layout import native_layout


class NativeModelRunner:
    """A transformers causal LM on the CPU, and its KV storage.

    Attributes:
        slots: tokens that the KV storage holds.
        rows: how rows are put to the products; in float32 bits do not depend on it.
        frequencies: of the rotary positions, as bytes.
    """

    def __init__(
        self, model: PreTrainedModel, kv_bytes: int, product_dtype: torch.dtype = torch.float32
    ) -> None:
        """Take over a model, whose weights are copied and let go of.

        Args:
            model: in float32 on the CPU, loaded for ``ATTENTION_NAME``.
            kv_bytes: bounds the storage of keys and values.
            product_dtype: of the decoder's matrix products; all else is in float32.

        Raises:
            NotDescribed: the kernels do not know the model, which stays as it is.
            UnsupportedModel: no runner serves it.
        """
        check_supported(model)
        if product_dtype is not torch.float32:
            check_products(model.device, product_dtype)
        decoder = describe(model)
        tune_malloc()
        shape = KVShape.of(model.config.get_text_config(), torch.float32)
        self.slots = shape.slots_within(kv_bytes)
        use_threads(torch.get_num_threads())
        self._head = NativeHead(decoder)
        threads, rounded = ThreadLimiter(), []

        def make_linear(linear: Linear) -> NativeLinear | BFloat16Linear:
            if product_dtype is torch.float32:
                return NativeLinear.of(linear)
            rounded.append(BFloat16Linear(linear, threads))
            return rounded[-1]

        storage = KVStorage(shape, self.slots, model.device)
        self._decoder = NativeDecoder(decoder, storage, make_linear)
        self.rows = native_layout([linear.linear for linear in rounded])
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
        height = rows_of(NATIVE_TILE_BYTES, head.vocab_size)
        output = reduce_head_rows(rows, self._logits, batch, head.vocab_size, reduce_tile, height)
        if bad is None:
            return output
        slots = frozenset(batch.slots[row] for row in bad.nonzero().flatten().tolist())
        return replace(output, bad_slots=slots)

    def _logits(self, x: Tensor) -> Tensor:
        self._progress()
        return self._head.logits(x)
