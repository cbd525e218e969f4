"""Room for work of different sizes."""

from __future__ import annotations

import asyncio

import pytest

from app.calibration.weighted_room import WeightedRoom

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """It is made of asyncio's own parts."""
    return "asyncio"


class Work:
    """Pieces that last until they are told to end, and which of them are under way."""

    def __init__(self, room: WeightedRoom) -> None:
        self.room, self.begun, self.ends = room, list[int](), dict[int, asyncio.Event]()

    def start(self, place: int, weight: int) -> asyncio.Task[None]:
        """One more piece."""
        self.ends[place] = asyncio.Event()
        return asyncio.create_task(self._do(place, weight))

    async def _do(self, place: int, weight: int) -> None:
        async with self.room.take(weight):
            self.begun.append(place)
            await self.ends[place].wait()


async def settle() -> None:
    """Let every task run as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_weights_and_count_are_bounded_and_the_first_goes_first() -> None:
    """A light piece does not pass a heavy one; what is too heavy for the room goes alone."""
    work = Work(WeightedRoom(10, 3))
    tasks = [work.start(place, weight) for place, weight in enumerate((4, 5, 99, 1, 1, 1, 1))]
    await settle()
    assert work.begun == [0, 1]
    work.ends[0].set()
    await settle()
    assert work.begun == [0, 1]
    work.ends[1].set()
    await settle()
    assert work.begun == [0, 1, 2]
    work.ends[2].set()
    await settle()
    assert work.begun == [0, 1, 2, 3, 4, 5]
    for end in work.ends.values():
        end.set()
    await asyncio.gather(*tasks)
    assert len(work.begun) == 7


async def test_what_is_cancelled_gives_its_room_back() -> None:
    """While it waits, once its turn has come, and under way."""
    work = Work(WeightedRoom(10, 2))
    running, waiting, last = (work.start(place, 10) for place in range(3))
    await settle()
    waiting.cancel()
    await settle()
    assert work.begun == [0]
    work.ends[0].set()
    await running
    last.cancel()
    await asyncio.gather(waiting, last, return_exceptions=True)
    again = work.start(3, 10)
    await settle()
    assert work.begun[-1] == 3
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)
    both = [work.start(place, 5) for place in (4, 5)]
    await settle()
    assert work.begun[-2:] == [4, 5]
    for place in (4, 5):
        work.ends[place].set()
    await asyncio.gather(*both)
