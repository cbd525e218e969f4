"""`make bench`: beam search, 4 beams x 32 tokens, against ``generate`` by hand.

Both sides hold the prompt's keys and values already.
"""

from __future__ import annotations

from functools import partial

from benchmarks import by_hand, workloads
from benchmarks.agreement import check_same
from benchmarks.in_process import InProcess
from benchmarks.table import Table
from benchmarks.timing import Side, alternate, median, product_peak
from benchmarks.workloads import ALIAS, BODY_GFLOP, HEAD_GFLOP
from model_runtime import BeamSearch, DecodingLimits, fetch_model

BEAMS, NEW = 4, 32


def decode(ours: InProcess, prompt: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """The best completion, and how many tokens were computed."""
    search = BeamSearch(
        prompt,
        DecodingLimits(NEW),
        vocab_size=ours.engine.info.vocab_size,
        num_beams=BEAMS,
    )
    (outcome,) = ours.decode([search])
    return outcome.value.hypotheses[0].token_ids, outcome.computed_tokens


def run(runs: int) -> None:
    """Print the table."""
    model = by_hand.load(fetch_model(ALIAS))
    (prompt,) = workloads.prompts(1)
    with InProcess() as ours:
        theirs = by_hand.Decoder(model, [prompt], num_beams=BEAMS)
        check_same("the best completion", [decode(ours, prompt)[0]], theirs.generate(NEW))
        _, computed = decode(ours, prompt)
        sides: dict[str, Side] = {
            "ours": partial(decode, ours, prompt),
            "theirs": partial(theirs.generate, NEW),
        }
        seconds = alternate(sides, runs, warm_up=False)
    peak = product_peak()
    mine, hand = median(seconds["ours"]), median(seconds["theirs"])
    share = computed * (BODY_GFLOP + HEAD_GFLOP) / mine / peak
    Table(
        f"{BEAMS} beams x {NEW} tokens behind a cached prompt of {len(prompt)}, float32: medians "
        f"of {runs} alternating runs, the same completion on both sides",
        *("generate, s", "chainrule, s", "ratio", "computed tokens", "of the product peak"),
    ).row(
        *(f"{hand:.2f}", f"{mine:.2f}", f"{hand / mine:.2f}x", str(computed)),
        f"{share:.0%} of {peak:.0f} GFLOP/s",
    )
