"""ModelRunner.run(batch): one forward over the new tokens, the head over the asked rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from model_runtime.attention import cuda
from model_runtime.attention.path_attention import PathAttention
from model_runtime.attention.row_tiles import Heads
from model_runtime.batching.batch import Batch, BatchOutput
from model_runtime.errors import OutOfMemory, UnsupportedModel
from model_runtime.kernels.activations import replace_activations
from model_runtime.kernels.allocator import tune_malloc
from model_runtime.kernels.linear import (
    PackedLinear,
    check_products,
    forget_products,
    pack_linears,
)
from model_runtime.kernels.precision import disable_reduced_precision
from model_runtime.kernels.threads import ThreadLimiter
from model_runtime.kv_cache.storage import KVShape, KVStorage
from model_runtime.loading.supported_models import check_supported
from model_runtime.logprobs.reduce import reduce_head_rows, tile_height
from model_runtime.runner.row_layout import RowLayout, choose_layout

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Precisions of the decoder's products, by the name that settings use."""


class ModelRunner:
    """A transformers causal LM, its KV storage, and the one way to run it.

    The decoder is called with a batch as one flat sequence; ``PathAttention`` alone knows
    that it is many paths. Everything else in a decoder works token by token.

    Attributes:
        slots: tokens that the KV storage holds.
        rows: how rows are put to the products; bits depend on it. Chosen on CPU alone.
    """

    def __init__(
        self, model: PreTrainedModel, kv_bytes: int, product_dtype: torch.dtype = torch.float32
    ) -> None:
        """Take over a model.

        Args:
            model: in float32, loaded for ``ATTENTION_NAME``.
            kv_bytes: bounds the storage of keys and values.
            product_dtype: of the decoder's matrix products. The head, softmax, norms and the
                residual stay in float32. On CUDA keys and values are stored in it as well.
        """
        check_supported(model)
        check_products(model.device, product_dtype)
        self.device = model.device
        self._name = type(model).__name__
        self._decoder = model.base_model
        on_cpu = self.device.type == "cpu"
        if on_cpu:
            tune_malloc()
        else:
            disable_reduced_precision()
        replace_activations(self._decoder)
        self._head = _Head(model)
        self._threads = ThreadLimiter()
        layers = pack_linears(self._decoder, self.device, product_dtype, self._threads)
        head = self._head.pack(self.device, self._threads)
        config = model.config.get_text_config()
        self.rows = RowLayout()
        if on_cpu:
            most = self._head.most_rows(self.device)
            self.rows = choose_layout(Heads.of(config), layers, head, most)
        shape = KVShape.of(config, model.dtype if on_cpu else product_dtype)
        self._layers = shape.layers
        self.slots = shape.slots_within(kv_bytes)
        self._storage = KVStorage(shape, self.slots, self.device)
        self._kernel = self.rows.attention.kernel() if on_cpu else cuda.attend
        self._progress: Callable[[], None] = lambda: None

    def report_to(self, progress: Callable[[], None]) -> None:
        """What to call from now on for each layer and each tile of the head that is reached."""
        self._progress = progress

    @torch.inference_mode()
    def run(self, batch: Batch) -> BatchOutput:
        """Compute a batch.

        Raises:
            OutOfMemory: it does not fit the device beside what is there.
        """
        try:
            with self._threads.for_batch(batch):
                hidden, bad = self._forward(batch)
            rows = torch.tensor(batch.head_rows, dtype=torch.long, device=self.device)
            output = reduce_head_rows(hidden[rows], self._logits, batch, self._head.vocab_size)
            return output if bad is None else replace(output, bad_slots=_slots_of(batch, bad))
        except Exception as error:
            forget_products(self._decoder)
            if isinstance(error, torch.cuda.OutOfMemoryError):
                tokens = len(batch.token_ids)
                raise OutOfMemory(f"a batch of {tokens} tokens is too large") from error
            raise

    def _forward(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Final hidden states, [N, hidden_size], and ``PathAttention.bad``."""
        attention = PathAttention(batch, self._storage, self._attend, self.rows.attention.step)
        output = self._decoder(
            input_ids=torch.tensor([batch.token_ids], device=self.device),
            position_ids=torch.tensor([batch.positions], device=self.device),
            use_cache=False,
            path_attention=attention,
        )
        if len(attention.layers) != self._layers:
            raise UnsupportedModel(
                f"{self._name} calls attention of its own: {len(attention.layers)} of its "
                f"{self._layers} layers attended along the paths"
            )
        return output.last_hidden_state[0], attention.bad

    def _attend(self, *arguments: Any) -> tuple[Tensor, Tensor]:
        self._progress()
        return self._kernel(*arguments)

    def _logits(self, hidden: Tensor) -> Tensor:
        """Of two rows at least: one takes another code path of the libraries."""
        self._progress()
        return self._head(hidden.expand(2, -1) if hidden.shape[0] == 1 else hidden)


def _slots_of(batch: Batch, rows: Tensor) -> frozenset[int]:
    """Slots of the tokens that ``rows``, [N] booleans, picks."""
    return frozenset(batch.slots[row] for row in rows.nonzero().flatten().tolist())


class _Head:
    """The output projection, with the model's own soft cap on logits."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._project: nn.Module = model.get_output_embeddings()
        self.vocab_size = int(self._project.weight.shape[0])
        config = model.config.get_text_config()
        self._softcap: float | None = getattr(config, "final_logit_softcapping", None)

    def pack(self, device: torch.device, threads: ThreadLimiter) -> list[PackedLinear]:
        holder = nn.ModuleList([self._project])
        packed = pack_linears(holder, device, torch.float32, threads)
        self._project = holder[0]
        return packed

    def most_rows(self, device: torch.device) -> int:
        """Rows that it gets at once, at most."""
        return tile_height(self.vocab_size, device)

    def __call__(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self._project(hidden)
        if self._softcap is not None:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        return logits
