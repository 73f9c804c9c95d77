import threading
import time

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


def test_each_kind_has_a_slot_and_none_waits_for_more_than_one_of_every_other() -> None:
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
