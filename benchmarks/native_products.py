"""The native products of a step against torch's and oneDNN's, and against the memory's speed.

    python -m benchmarks.native_products --runs 15

All products of one step of the default model, layer by layer, so that no cache holds a weight:
30 times 576 -> 960, 576 -> 576, 576 -> 3,072 and 1,536 -> 576, and the head, 576 -> 49,152. The
fastest of alternating runs of each side counts, since what a neighbour does only adds to one.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.timing import alternate, read_bandwidth
from model_runtime.native.kernels import PackedWeight, pack, product
from model_runtime.native.library import Operation, best_instruction_set, run, use_threads

LAYERS = 30
SHAPES = [(576, 960), (576, 576), (576, 3072), (1536, 576)] * LAYERS + [(576, 49_152)]
"""in, out of every product of a step."""


def operations(inputs: dict[int, Tensor], weights: list[PackedWeight]) -> list[Operation]:
    """A step's products as one call."""
    listed = []
    for weight in weights:
        x = inputs[weight.in_features]
        listed.append(product(x, weight, None, torch.empty(x.shape[0], weight.out_features)))
    return listed


def measure(rows: int, runs: int, weights: list[Tensor]) -> dict[str, float]:
    """Seconds of the fastest run of each side."""
    inputs = {width: torch.randn(rows, width) for width in (576, 1536)}
    padded = {
        width: x.expand(2, -1).contiguous() if rows == 1 else x for width, x in inputs.items()
    }
    reordered = [torch.ops.mkldnn._reorder_linear_weight(weight, 256) for weight in weights]
    float32 = operations(inputs, [pack(weight) for weight in weights])
    bfloat16 = operations(inputs, [pack(weight, torch.bfloat16) for weight in weights])

    def torch_linear() -> None:
        for weight in weights:
            torch.nn.functional.linear(inputs[weight.shape[1]], weight)

    def onednn() -> None:
        for (width, _), weight in zip(SHAPES, reordered, strict=True):
            torch.ops.mkldnn._linear_pointwise(padded[width], weight, None, "none", [], "")

    sides: dict[str, Callable[[], object]] = {
        "torch linear": torch_linear,
        "oneDNN": onednn,
        "native float32": lambda: run(float32),
        "native bfloat16": lambda: run(bfloat16),
    }
    return {name: min(seconds) for name, seconds in alternate(sides, runs).items()}


def main(runs: int, threads: int) -> None:
    """Print a table for one to 32 rows."""
    torch.set_num_threads(threads)
    team = use_threads(threads)
    limit = read_bandwidth(5)
    load = os.getloadavg()[0]
    print(f"{best_instruction_set().name}, {team} threads, load {load:.1f}")
    print(f"memory read by torch's sum: {limit / 1e9:.1f} GB/s")
    print("| rows | side | ms | against torch linear | GB/s | of the memory's |")
    print("| --- | --- | --- | --- | --- | --- |")
    weights = [(torch.randn(out, width) / 25).bfloat16().float() for width, out in SHAPES]
    size = sum(weight.numel() for weight in weights)
    for rows in (1, 2, 4, 8, 16, 32):
        seconds = measure(rows, runs, weights)
        for name, best in seconds.items():
            speed = size * (2 if name == "native bfloat16" else 4) / best
            ratio = seconds["torch linear"] / best
            print(
                f"| {rows} | {name} | {1000 * best:.1f} | {ratio:.2f} "
                f"| {speed / 1e9:.1f} | {speed / limit:.2f} |"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15, help="alternating runs of each side")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    main(arguments.runs, arguments.threads)
