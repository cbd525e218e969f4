"""The final norm and the output projection, through the native kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from model_runtime.decoder.description import Decoder
from model_runtime.decoder.operations import native_product, norm_rows
from model_runtime.decoder.weights import NativeLinear
from model_runtime.native.library import run


class NativeHead:
    """[M, hidden] rows as the layers leave them -> [M, vocab] logits.

    Attributes:
        vocab_size: columns of the logits.
        softcap: that their reduction has to apply; None for none.
    """

    def __init__(self, decoder: Decoder) -> None:
        """Copy the decoder's final norm and head."""
        self._norm = decoder.norm
        self._linear = NativeLinear.of(decoder.head)
        self.softcap = decoder.logit_softcap
        self.vocab_size = self._linear.outputs

    def logits(self, x: Tensor) -> Tensor:
        """New logits, not capped yet; ``x`` stays as it is."""
        normed, logits = torch.empty_like(x), torch.empty(len(x), self.vocab_size)
        run([norm_rows(x, self._norm, normed), native_product(normed, self._linear, logits)])
        return logits
