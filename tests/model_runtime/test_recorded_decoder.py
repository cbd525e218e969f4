"""Small batches through recordings give the bits of the decoder itself, or the decoder is used."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from model_runtime.attention.interface import Attention
from model_runtime.recorded_decoder import RECORDED_ROWS, RECORDINGS, RecordedDecoder
from model_runtime.recording import Decode
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


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_one_row_is_recorded_wherever_its_position_is(kind: str, tiny_folder: TinyFolder) -> None:
    """A recording made at one position serves all others, the model's last ones included."""
    rng = random.Random(kind)
    plain, recorded = Offline(tiny_folder(kind)), Offline(tiny_folder(kind))
    plain.runner._decode = plain.runner._decode_plainly
    for length in (2, 2, 2, 60, 100, 7):
        path = random_path(rng, length)
        query = LogprobQuery(path, length, (3,), 2, keep=length)
        assert recorded.answer([query], 1) == plain.answer([query], 1)
    assert set(recorder(recorded)._replays) == {1}


def test_batches_up_to_a_size_are_recorded(tiny_folder: TinyFolder) -> None:
    """Batches of more rows than pays off run through the model's own code each time."""
    offline = Offline(tiny_folder("llama"))
    rng = random.Random(1)
    for rows in (RECORDED_ROWS, RECORDED_ROWS + 1):
        for _ in range(4):
            offline.answer([LogprobQuery(random_path(rng, rows + 1), 1)])
            assert len(offline.batches[-1].token_ids) == rows
    decode = recorder(offline)
    assert set(decode._replays) == {RECORDED_ROWS}
    assert not decode._untried


def test_recordings_are_bounded() -> None:
    """The one that was not used for longest goes, and may be made again."""
    recorded = recorded_of(lambda token_ids, *_: token_ids[0].float().unsqueeze(1) * 2)
    for rows in (*range(1, RECORDINGS + 1), 1, RECORDINGS + 1):
        for _ in range(3):
            assert run(recorded, range(rows)).flatten().tolist() == [2 * i for i in range(rows)]
    assert len(recorded._replays) == RECORDINGS
    assert 1 in recorded._replays
    assert 2 not in recorded._replays


def recorded_of(decode: Decode) -> RecordedDecoder:
    return RecordedDecoder(decode, {}, 1_000, 1_000)


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

    recorded = recorded_of(decode)
    for rows in ([1, 2], [3, 4], [5, 6], [7, 8], [9, 10]):
        want = decode(torch.tensor([rows]), torch.arange(2).unsqueeze(0), NoAttention())
        assert torch.equal(run(recorded, rows), want)
    assert calls == 5 + 3


def test_a_constant_made_on_the_way_is_no_freed_tensor() -> None:
    """A tensor that comes from Python is not taken for one that lay at its address before."""

    def decode(token_ids: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        x = token_ids[0].float().unsqueeze(1)
        gone = (x <= 100).float()
        total = x + gone
        del gone
        return total * torch.tensor([[1.0]] * x.shape[0])

    recorded = recorded_of(decode)
    for rows in ([1, 2], [3, 4], [5, 6], [700, 8]):
        assert run(recorded, rows).flatten().tolist() == [row + (row <= 100) for row in rows]
    assert set(recorded._replays) == {2}


def doubled_above_five(token_ids: Tensor) -> Tensor:
    rows = token_ids[0].float().unsqueeze(1)
    return rows * 2 if bool(token_ids.max() > 5) else rows * 3


def quietly(token_ids: Tensor) -> Tensor:
    """Whatever is raised in it."""
    try:
        return doubled_above_five(token_ids)
    except RuntimeError:
        return token_ids[0].float().unsqueeze(1)


def only_above_five(token_ids: Tensor) -> Tensor:
    rows = token_ids[0].float()
    rows[rows > 5] = rows[rows > 5] * 2
    return rows.unsqueeze(1)


def of_the_first(token_ids: Tensor) -> Tensor:
    return torch.arange(2000.0).narrow(0, token_ids[0, 0], 2).unsqueeze(1)


def behind_torchs_back(token_ids: Tensor) -> Tensor:
    return token_ids[0].float().unsqueeze(1) * int(token_ids.numpy().max())


def in_this_thread_only(token_ids: Tensor) -> Tensor:
    """Fails where its calls are looked at."""
    if torch._C._len_torch_dispatch_stack():
        raise NotImplementedError("not under a mode")
    return token_ids[0].float().unsqueeze(1)


@pytest.mark.parametrize(
    "compute",
    [
        doubled_above_five,
        quietly,
        only_above_five,
        of_the_first,
        behind_torchs_back,
        in_this_thread_only,
    ],
)
def test_a_decoder_that_cannot_be_recorded_is_run_itself(
    compute: Callable[[Tensor], Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    """Where what is called or computed hangs on values, every answer is the decoder's own."""
    caplog.set_level(logging.INFO)

    def decode(token_ids: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        return compute(token_ids)

    recorded = recorded_of(decode)
    for rows in ([1, 2], [1, 2], [1, 2], [6, 7], [1, 9], [8, 8]):
        assert torch.equal(run(recorded, rows), compute(torch.tensor([rows])))
    assert not recorded._replays
    assert [entry.message.split(":")[0] for entry in caplog.records] == [
        "small batches run the model's own code, which is slower"
    ]


def test_no_trial_writes_to_a_cache() -> None:
    """The attention of a batch is asked once for each layer, whichever way it runs."""

    class Counted(NoAttention):
        def attend(self, *given: object) -> Tensor:
            (layer, query) = given[:2]
            assert isinstance(layer, int)
            assert isinstance(query, Tensor)
            assert layer not in self.layers
            self.layers.add(layer)
            return query.transpose(0, 1).contiguous()

    def decode(token_ids: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        x = token_ids[0].float().view(1, -1, 1).expand(2, -1, 4)
        return attention.attend(0, x, x, x, 1.0, None, None).flatten(1)

    recorded = recorded_of(decode)
    with torch.inference_mode():
        for rows in ([1, 2], [3, 4], [5, 6], [7, 8]):
            attention = Counted()
            hidden = recorded(torch.tensor([rows]), torch.tensor([[0, 1]]), attention)
            assert hidden.tolist() == [[row] * 8 for row in rows]
            assert attention.layers == {0}
    assert set(recorded._replays) == {2}


def test_a_number_that_is_none_is_the_same_bits() -> None:
    """A model that overflows is recorded like any other; its rows are refused elsewhere."""
    recorded = recorded_of(lambda token_ids, *_: token_ids[0].float().unsqueeze(1) * math.nan)
    for _ in range(4):
        assert run(recorded, [1, 2]).isnan().all()
    assert set(recorded._replays) == {2}
