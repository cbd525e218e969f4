"""`make bench`: greedy decoding of 1, 8 and 32 prompts against ``generate`` by hand.

Both sides hold the prompts' keys and values already. The floor of a step is the longer of two
times: reading every weight once and every cached key and value, and computing the products.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from benchmarks import by_hand, workloads
from benchmarks.agreement import check_same
from benchmarks.in_process import InProcess
from benchmarks.table import Table
from benchmarks.timing import Side, alternate, median, product_peak, read_bandwidth
from benchmarks.workloads import ALIAS, BODY_GFLOP, HEAD_GFLOP
from model_runtime import DecodingLimits, GreedySearch, fetch_model

PROMPT, NEW = 256, 32
"""Tokens of a prompt, and tokens generated behind it."""


def decode(
    ours: InProcess, prompts: Sequence[tuple[int, ...]]
) -> tuple[list[tuple[int, ...]], int]:
    """Every completion, and how many tokens were computed for all."""
    vocab_size = ours.engine.info.vocab_size
    searches = [
        GreedySearch(prompt, DecodingLimits(NEW), vocab_size=vocab_size) for prompt in prompts
    ]
    outcomes = ours.decode(searches)
    completions = [outcome.value.hypotheses[0].token_ids for outcome in outcomes]
    return completions, sum(outcome.computed_tokens for outcome in outcomes)


def check(ours: InProcess, theirs: by_hand.Decoder, prompts: Sequence[tuple[int, ...]]) -> None:
    """Both sides generate the same, and ours feeds one token a step once the prompts are there."""
    completions, _ = decode(ours, prompts)
    check_same("the tokens generated", completions, theirs.generate(NEW))
    _, computed = decode(ours, prompts)
    if computed != NEW * len(prompts):
        raise SystemExit(f"{computed} tokens computed for {NEW * len(prompts)} steps")


def floor_tokens_per_s(
    batch: int, weights: int, kv: float, bytes_per_s: float, gflop_per_s: float
) -> float:
    """Tokens a second that memory and products allow.

    Args:
        batch: sequences a step.
        weights: bytes of all weights, read once a step.
        kv: bytes of one sequence's keys and values, read once a step.
        bytes_per_s, gflop_per_s: the machine's measured limits.
    """
    memory = (weights + batch * kv) / bytes_per_s
    products = batch * (BODY_GFLOP + HEAD_GFLOP) / gflop_per_s
    return batch / max(memory, products)


def bytes_per_token(ours: InProcess) -> float:
    """What one token's keys and values take."""
    return ours.engine.config.kv_cache_bytes / (ours.engine.stats().cache_slots + 1)


def run(runs: int) -> None:
    """Print the table."""
    model = by_hand.load(fetch_model(ALIAS))
    with InProcess() as ours:
        weights = 4 * ours.engine.info.parameters
        kv = bytes_per_token(ours) * (PROMPT + NEW / 2)
        table = Table(
            f"Greedy, {NEW} tokens behind cached prompts of {PROMPT}, float32: medians of {runs} "
            "alternating runs",
            *("batch", "generate, tok/s", "chainrule, tok/s", "ratio"),
            *("floor, tok/s", "of the floor", "at a read of, GB/s", "at products of, GFLOP/s"),
        )
        for batch in (1, 8, 32):
            prompts = workloads.prompts(batch)
            theirs = by_hand.Decoder(model, prompts)
            check(ours, theirs, prompts)
            sides: dict[str, Side] = {
                "ours": partial(decode, ours, prompts),
                "theirs": partial(theirs.generate, NEW),
            }
            seconds = alternate(sides, runs, warm_up=False)
            bandwidth, peak = read_bandwidth(), product_peak()
            one, other = (batch * NEW / median(seconds[side]) for side in ("ours", "theirs"))
            floor = floor_tokens_per_s(batch, weights, kv, bandwidth, peak)
            table.row(
                *(str(batch), f"{other:.1f}", f"{one:.1f}", f"{one / other:.2f}x"),
                *(f"{floor:.0f}", f"{one / floor:.0%}", f"{bandwidth / 1e9:.1f}", f"{peak:.0f}"),
            )
