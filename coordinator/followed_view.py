"""A run that is followed from its store, as a screen: the last events, machines, folds, who drives it, the finish."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from datetime import datetime

from rich.text import Text

from coordinator.display import Rows, cut, drawn
from coordinator.finish import Finish
from coordinator.followed import Followed, clock_time
from coordinator.view import finish_line, summary


def shown(followed: Followed, now: float, width: int, height: int | None) -> Text:
    """Within a terminal of that size; without a height, all there is. Machines are shown while somebody drives.

    `now`: seconds on the clock of `followed.look`.
    """
    drive, ledger = followed.drive, followed.drive.ledger
    driven = followed.is_driven(now)
    sentences = [summary(ledger), *_who(followed, driven)]
    if driven and not ledger.all_done:
        finish = Finish(time.monotonic, random.Random(0).random).look(ledger)
        wall = (drive.time_of(ledger.now) or datetime.now()).astimezone()
        sentences.append(finish_line(finish, ledger, wall))
    lines = [] if ledger.all_done else list(drive.lines)
    room = None
    if height is not None:
        lines = lines[-max(1, height // 6) :]
        room = height - len(lines) - 2
    display = drive.watched.screen(ledger, sentences, room)
    text = Text("".join(cut(line, width) + "\n" for line in lines), no_wrap=True, end="")
    return text.append_text(drawn(display if driven else replace(display, machines=Rows(())), width))


def _who(followed: Followed, driven: bool) -> list[str]:
    holder = followed.holder
    if holder is None or followed.drive.ledger.all_done:
        return []
    if followed.foreign:
        return [f"last driven by {holder}, with a configuration of other tasks"]
    as_of = clock_time(followed.drive.time_of(followed.drive.ledger.now))
    told = f", this as of {as_of}" if as_of else ""
    who = f"process {holder.process} on {holder.host}"
    if driven:
        return [f"driven by {who}{told}"]
    cut_off = ["what is shown as running was cut off, and goes on from its last commit"]
    return [f"nobody drives it; last {who}{told}", *(cut_off if followed.drive.ledger.running else [])]
