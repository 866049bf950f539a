"""A card is asked about now and then, by nobody who would wait for it."""

from __future__ import annotations

import threading

from processes import eventually

from workers.card_watch import EVERY_SECONDS, CardWatch
from workers.cards import Card


def card(celsius: float) -> Card:
    return Card(0, "GPU-0", "GTX", "6.1", "560", 6.0, 1.0, celsius)


class Driver:
    """Answers with the next of its words once it is let."""

    def __init__(self, *words: Card | None) -> None:
        self.asked, self.may_answer = 0, threading.Semaphore(0)
        self._words = list(words)

    def __call__(self) -> Card | None:
        self.asked += 1
        self.may_answer.acquire()
        return self._words.pop(0)


def test_what_was_told_last_is_known_until_it_is_asked_again() -> None:
    now = 0.0
    driver = Driver(card(60.0), card(70.0))
    watch = CardWatch(driver, lambda: now)
    assert watch.newest() is None  # nobody waited for the first answer
    driver.may_answer.release()
    assert eventually(lambda: watch.newest() == card(60.0))
    now = EVERY_SECONDS - 1
    assert watch.newest() == card(60.0) and driver.asked == 1
    now = EVERY_SECONDS
    assert watch.newest() == card(60.0)
    driver.may_answer.release()
    assert eventually(lambda: watch.newest() == card(70.0)) and driver.asked == 2


def test_of_a_driver_that_hangs_nothing_is_known_after_a_while_and_it_is_not_asked_twice() -> None:
    now = 0.0
    driver = Driver(card(60.0), None)
    watch = CardWatch(driver, lambda: now)
    watch.newest()
    driver.may_answer.release()
    assert eventually(lambda: watch.newest() is not None)
    now = EVERY_SECONDS
    watch.newest()
    for later in range(10, 1000, 10):
        now = later * EVERY_SECONDS
        assert watch.newest() is None
    assert eventually(lambda: driver.asked == 2)
    driver.may_answer.release()
