"""A task's story: its attempts, where and when, why each ended, its commits and moves; how it stands, and its log.

foldfleet explain teacher/fold3 --store STORE --run NAME        TASK: its name, or its id
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from coordinator.data import recorded_data
from coordinator.followed import JournalTail
from coordinator.logs import log_place
from coordinator.session import Session
from coordinator.stories import named_task, story_of
from jobs.console import done
from jobs.run_command import again, run_command
from shared_store.commits import last_commit, read_result
from shared_store.errors import UserError
from shared_store.store import Store
from workers.tasks import Task, TrainTask


def main(arguments: Sequence[str]) -> int:
    words = [*arguments]
    task = words.pop(0) if words and not words[0].startswith("-") else ""
    return run_command("explain", __doc__, lambda session: _explain(session, task, "--debug" in arguments), words)


def _explain(session: Session, word: str, debug: bool) -> None:
    if not word:
        raise UserError("no task is named", where="foldfleet explain", mend=again(session, "explain teacher/fold0"))
    tasks = recorded_data(session.store, session.run).graph(session.experiment).tasks
    name = named_task(word, tasks)
    story = story_of(name, JournalTail(session.store, session.run).new())
    session.say(f"{tasks[name].name} ({name})")
    for line in story.told() or ["  nothing of it stands in the run's journal"]:
        session.say(line)
    if debug:
        for text in story.tracebacks:
            session.say(text)
    result = read_result(session.store, name)
    log = log_place(session.store, name)
    if isinstance(tasks[name], TrainTask):
        session.say(f"log: {log}" if log else "log: none yet; it begins with the first commit")
    done(_standing(session.store, name, tasks), again(session, "status" if result is not None else "pipeline"))


def _standing(store: Store, name: str, tasks: Mapping[str, Task]) -> str:
    """How it is now, by what stands in the store."""
    task, result = tasks[name], read_result(store, name)
    if result is not None:
        numbers = result.numbers
        score = f", mAP {numbers['mean_ap']:.4f} at epoch {numbers['kept_epoch']:.0f}" if "mean_ap" in numbers else ""
        return f"{task.name} is done{score}"
    commit = last_commit(store, name)
    if commit is not None:
        return f"{task.name} is not done: its newest commit is number {commit.number}, after epoch {commit.epoch}"
    waits = [tasks[other].name for other in task.inputs if read_result(store, other) is None]
    return f"{task.name} has not begun" + (f": it waits for {', '.join(waits)}" if waits else "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
