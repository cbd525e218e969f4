"""What torch may round in CUDA products without being asked: nothing."""

from __future__ import annotations

import torch


def disable_reduced_precision() -> None:
    """Multiply float32 as float32, and add up 16-bit products in float32.

    Some programs turn TF32 on for a whole process, and torch lets split sums of 16-bit products
    be rounded between their parts by default. Neither is what ``float32`` and ``bfloat16`` say.
    """
    matmul = torch.backends.cuda.matmul
    matmul.fp32_precision = "ieee"
    matmul.allow_bf16_reduced_precision_reduction = False
