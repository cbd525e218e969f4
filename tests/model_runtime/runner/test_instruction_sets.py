"""Bits do not depend on crowd on other CPUs either, as far as this one can stand in for them.

The libraries are held to the instruction sets of a lesser CPU, in a process of its own: oneDNN for
the products with weights, MKL and torch for attention and all else. What this CPU does by itself is
tried by all other tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import TinyFolder
from tests.model_runtime.runner.test_invariance import GEMMA_3
from tests.tiny_models import save_tiny_model

ROOT = Path(__file__).parents[3]

CPUS = {
    "AVX2": ("avx2", "AVX2", "AVX2"),
    "AVX512_CORE": ("avx512_f", "AVX512_CORE", "AVX512"),
    "AVX512_CORE_BF16": ("avx512_bf16", "AVX512_CORE_BF16", "AVX512"),
}
"""(what the CPU must have, ONEDNN_MAX_CPU_ISA, MKL_ENABLE_INSTRUCTIONS)"""

TORCH = {"AVX2": "avx2", "AVX512": "avx512"}
"""ATEN_CPU_CAPABILITY beside MKL's."""


def environment(cpu: str) -> dict[str, str]:
    needed, products, attention = CPUS[cpu]
    if not torch.cpu.get_capabilities().get(needed):
        pytest.skip(f"this CPU cannot stand in for one with {cpu}")
    return {
        "ONEDNN_MAX_CPU_ISA": products,
        "MKL_ENABLE_INSTRUCTIONS": attention,
        "ATEN_CPU_CAPABILITY": TORCH[attention],
    }


@pytest.mark.parametrize("cpu", CPUS)
def test_a_crowd_changes_no_bit_on_another_cpu(
    cpu: str, tiny_folder: TinyFolder, tmp_path: Path
) -> None:
    """Narrow, capped and wide heads, in each precision that the CPU has products of its own for."""
    limits = environment(cpu)
    wide = str(save_tiny_model("gemma3", tmp_path, **GEMMA_3))
    narrow, capped = str(tiny_folder("smollm")), str(tiny_folder("gemma2"))
    asked = []
    if cpu != "AVX512_CORE_BF16":  # whose products in float32 are AVX512_CORE's
        asked += [
            (narrow, "float32", "3" if cpu == "AVX2" else "2"),
            (capped, "float32", "2"),
            (wide, "float32", "2"),
        ]
    if cpu != "AVX2" and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        asked.append((narrow, "bfloat16", "2"))
    program = subprocess.run(
        [sys.executable, "-m", "tests.model_runtime.runner.invariance_program", *sum(asked, ())],
        cwd=ROOT,
        env={**os.environ, **limits},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [json.loads(line) for line in program.stdout.splitlines()]
    assert len(lines) == len(asked), program.stderr
    for (_, dtype, _), line in zip(asked, lines, strict=True):
        assert line["capability"].lower() == limits["ATEN_CPU_CAPABILITY"]
        # bfloat16 may be said to be without the promise; float32 has it everywhere
        assert line["batch_invariant"] or dtype == "bfloat16", line
        assert line["changed"] == [] or not line["batch_invariant"], line
