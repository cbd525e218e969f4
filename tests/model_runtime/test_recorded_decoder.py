"""Small batches through recordings give the bits of the decoder itself, or the decoder is used."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from model_runtime.attention.interface import Attention
from model_runtime.recorded_decoder import RECORDED_ROWS, RecordedDecoder
from model_runtime.types import LogprobQuery, LogprobResult
from tests.conftest import TinyFolder
from tests.offline import Offline
from tests.tiny_models import TINY_KINDS, TINY_VOCAB


class NoAttention:
    """Of a decoder that attends to nothing."""

    def __init__(self) -> None:
        self.layers: set[int] = set()

    def attend(self, *_: object) -> Tensor:
        raise NotImplementedError


def recorder(offline: Offline) -> RecordedDecoder:
    decode = offline.runner._decode
    assert isinstance(decode, RecordedDecoder)
    return decode


def random_path(rng: random.Random, length: int) -> tuple[int, ...]:
    return tuple(rng.randrange(TINY_VOCAB - 16) for _ in range(length))


def steps(rng: random.Random, lengths: Sequence[int]) -> list[LogprobQuery]:
    """A row behind each of some paths, asked after all that is before it is cached."""
    paths = [random_path(rng, length) for length in lengths]
    return [LogprobQuery(path, len(path), (3,), 2, keep=len(path)) for path in paths]


def grown(queries: Sequence[LogprobQuery], rng: random.Random) -> list[LogprobQuery]:
    """The next step of each: one token more."""
    paths = [query.tokens + random_path(rng, 1) for query in queries]
    return [LogprobQuery(path, len(path), (3,), 2, keep=len(path)) for path in paths]


def generation(offline: Offline, seed: str, longest: int) -> list[list[LogprobResult]]:
    """Ten steps of one, two and five paths, so that each size comes again and again."""
    rng = random.Random(seed)
    answers = []
    for count in (1, 2, 5):
        queries = steps(rng, [rng.randrange(3, longest) for _ in range(count)])
        offline.answer(queries)
        for _ in range(10):
            queries = grown(queries, rng)
            answers.append(offline.answer(queries))
    return answers


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_recorded_steps_give_the_bits_of_the_decoder(kind: str, tiny_folder: TinyFolder) -> None:
    """Steps of every architecture are replayed, and no bit differs from the model's own code."""
    longest = 90 if kind == "gpt2" else 200
    plain = Offline(tiny_folder(kind))
    plain.runner._decode = plain.runner._decode_plainly
    recorded = Offline(tiny_folder(kind))
    assert generation(recorded, kind, longest) == generation(plain, kind, longest)
    assert set(recorder(recorded)._replays) >= {1, 2, 5}


def test_a_large_batch_is_not_recorded(tiny_folder: TinyFolder) -> None:
    """Batches of more rows than pays off run through the model's own code each time."""
    offline = Offline(tiny_folder("llama"))
    rng = random.Random(1)
    for _ in range(4):
        offline.answer([LogprobQuery(random_path(rng, RECORDED_ROWS + 2), 1)])
    decode = recorder(offline)
    assert not decode._replays
    assert not decode._untried


def run(decode: RecordedDecoder, rows: Sequence[int]) -> Tensor:
    attention: Attention = NoAttention()
    with torch.inference_mode():
        positions = torch.arange(len(rows)).unsqueeze(0)
        return decode(torch.tensor([rows]), positions, attention)


WEIGHT = torch.linspace(-1, 1, 12).view(4, 3)


def test_calls_in_place_and_on_views_are_made_again() -> None:
    """What is written through a view, an out argument or to several tensors at once is seen."""
    calls = 0

    def decode(token_ids: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        nonlocal calls
        calls += 1
        x = token_ids[0].float().unsqueeze(1) * WEIGHT.t()[:, :3].sum(0)
        left, right = x.split([1, 2], dim=1)
        left.add_(positions[0].unsqueeze(1))
        torch.mul(right, 2.0, out=right)
        total = torch.cat([x, x.flip(0), left.expand(-1, 2)], dim=-1)
        return total.to(torch.float32).contiguous()[:, 1:]

    recorded = RecordedDecoder(decode, {})
    for rows in ([1, 2], [3, 4], [5, 6], [7, 8], [9, 10]):
        want = decode(torch.tensor([rows]), torch.arange(2).unsqueeze(0), NoAttention())
        assert torch.equal(run(recorded, rows), want)
    assert calls == 5 + 3


def test_a_decoder_that_reads_values_is_run_itself(caplog: pytest.LogCaptureFixture) -> None:
    """Where Python decides by what a tensor holds, nothing is recorded, and it is said once."""

    def decode(token_ids: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        rows = token_ids[0].float().unsqueeze(1)
        return rows * 2 if bool(token_ids.max() > 5) else rows * 3

    recorded = RecordedDecoder(decode, {})
    for rows in ([1, 2], [3, 4], [6, 7], [1, 9]):
        factor = 2 if max(rows) > 5 else 3
        assert run(recorded, rows).flatten().tolist() == [row * factor for row in rows]
    (said,) = [record.message for record in caplog.records]
    assert said == "small batches run without recordings: aten.is_nonzero.default reads values back"


def test_a_recording_of_other_bits_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    """A value that came in behind torch's back is found when other tokens come."""

    def decode(token_ids: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        return token_ids[0].float().unsqueeze(1) * int(token_ids.numpy().max())

    recorded = RecordedDecoder(decode, {})
    for rows in ([1, 2], [3, 4], [5, 6], [7, 8]):
        assert run(recorded, rows).flatten().tolist() == [row * max(rows) for row in rows]
    assert len(caplog.records) == 1
