import threading
import time
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from denseav.stream.inference.latest_slot import LatestSlot


def test_newest_item_wins_and_the_replaced_are_counted() -> None:
    mailbox: LatestSlot[str] = LatestSlot()
    assert [mailbox.put(item) for item in "abc"] == [False, True, True]
    assert mailbox.get(0) == "c"
    assert mailbox.get(0) is None


def test_an_item_taken_in_time_is_not_counted_as_dropped() -> None:
    mailbox: LatestSlot[int] = LatestSlot()
    for item in range(5):
        assert not mailbox.put(item)
        assert mailbox.get(0) == item


def test_get_wakes_as_soon_as_an_item_comes() -> None:
    mailbox: LatestSlot[int] = LatestSlot()
    threading.Timer(0.05, mailbox.put, [7]).start()
    begin = time.monotonic()
    assert mailbox.get(10) == 7
    assert time.monotonic() - begin < 5


def test_close_wakes_the_waiting_consumer() -> None:
    mailbox: LatestSlot[int] = LatestSlot()
    threading.Timer(0.05, mailbox.close).start()
    begin = time.monotonic()
    assert mailbox.get(10) is None
    assert time.monotonic() - begin < 5


def test_a_closed_mailbox_gives_its_last_item_and_takes_no_more() -> None:
    mailbox: LatestSlot[int] = LatestSlot()
    mailbox.put(1)
    mailbox.close()
    assert not mailbox.put(2)
    assert mailbox.get(0) == 1
    assert mailbox.get(0) is None


def test_a_slow_consumer_sees_increasing_items_and_every_loss_is_counted() -> None:
    mailbox: LatestSlot[int] = LatestSlot()
    seen: list[int] = []

    def consume() -> None:
        while (item := mailbox.get(5)) is not None:
            seen.append(item)
            time.sleep(0.001)

    consumer = threading.Thread(target=consume)
    consumer.start()
    dropped = sum(mailbox.put(item) for item in range(1, 2001))
    mailbox.close()
    consumer.join()
    assert seen == sorted(seen)
    assert seen[-1] == 2000
    assert len(seen) + dropped == 2000


def test_each_kind_has_a_slot_and_the_newest_of_each_is_taken_in_turn() -> None:
    slot: LatestSlot[tuple[str, int]] = LatestSlot(lambda item: item[0])
    taken = []
    for turn in range(30):
        slot.put(("slow", turn))
        for burst in range(5):  # far more than its turn allows
            slot.put(("fast", 10 * turn + burst))
        taken.append(slot.get(0))
    by_kind = [item[0] for item in taken if item is not None]
    assert by_kind == 15 * ["slow", "fast"]
    newest = [item[1] for item in taken if item is not None and item[0] == "fast"]
    assert newest == [10 * turn + 4 for turn in range(1, 30, 2)]


def turns(periods: Sequence[int], pass_ticks: int, ticks: int, phase: int = 0) -> list[int]:
    """Whose turn it was: each kind has something new so often, and each turn takes so long."""
    slot: LatestSlot[int] = LatestSlot(lambda kind: kind)
    taken: list[int] = []
    waiting_since: dict[int, int] = {}
    for tick in range(ticks):
        for kind, period in enumerate(periods):
            if tick % period == (phase * kind) % period:
                slot.put(kind)
                waiting_since.setdefault(kind, len(taken))
        if tick % pass_ticks == 0:
            kind = slot.get(0)
            if kind is not None:
                others = Counter(taken[waiting_since.pop(kind) :])
                assert all(count == 1 for count in others.values()), (
                    "while one waits, another twice"
                )
                taken.append(kind)
    return taken


@pytest.mark.parametrize("phase", range(0, 50, 7))
def test_one_that_is_always_in_time_has_its_full_share_whenever_it_comes(phase: int) -> None:
    """A round of three takes 60; the slowest has something new every 50, and so in each round."""
    shares = Counter(turns([5, 5, 50], pass_ticks=20, ticks=6_000, phase=phase)[3:])
    assert max(shares.values()) - min(shares.values()) <= 1


def test_what_one_has_not_to_give_the_others_share() -> None:
    shares = Counter(turns([5, 5, 200], pass_ticks=20, ticks=6_000))
    assert shares[2] == 6_000 // 200, "all that the slowest gave"
    assert abs(shares[0] - shares[1]) <= 1
    assert sum(shares.values()) == 6_000 // 20, "and no turn was left out"


@given(
    periods=st.lists(st.integers(1, 90), min_size=1, max_size=6),
    pass_ticks=st.integers(1, 40),
    phase=st.integers(0, 90),
)
def test_while_one_waits_no_other_has_two_turns(
    periods: list[int], pass_ticks: int, phase: int
) -> None:
    turns(periods, pass_ticks, ticks=400, phase=phase)
