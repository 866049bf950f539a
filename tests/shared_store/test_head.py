"""The store on the head's disk, with a real Ray of two nodes: a folder at the head, an actor for everyone else."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
from careless import LooksThenWrites
from finished_run import finished_run
from head_store import Fake, RunningHead, open_files, peak_bytes, running_head
from racing import check
from ray.exceptions import RayTaskError
from tiny_fold import tiny_task

from coordinator.config import FleetSection, StoreSection, to_yaml
from coordinator.events import MachineJoined, Start, TaskEnded
from coordinator.fleet import RayFleet
from jobs import status
from shared_store import layout
from shared_store.backend import PART_BYTES, Content
from shared_store.cache import Cache
from shared_store.commits import read_result
from shared_store.errors import NotExclusiveError, StoreDownError, StoreError, StoreFullError, UserError
from shared_store.head import HeadBackend, committed_by_one
from shared_store.local import LocalBackend
from shared_store.records import sha256
from shared_store.retrying import Retrying
from shared_store.store import Store, open_store
from workers.tasks import task_id

MEMORY_BYTES = 64 * 2**20
KEY = "runs/demo/large"
LARGE = os.urandom(6 * PART_BYTES + 1)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHead]:
    with running_head(tmp_path_factory.mktemp("head")) as head:
        yield head


def server() -> Any:
    """The actor on the head."""
    return ray.get_actor("disks 1", namespace="foldfleet")


def in_server(act: Any, *arguments: object) -> Any:
    """What `act` returns in the actor's process."""
    return ray.get(server().__ray_call__.remote(lambda _server: act(*arguments)), timeout=60)


def test_at_the_head_it_is_a_folder_and_elsewhere_the_same_through_an_actor(head: RunningHead) -> None:
    url = f"head://{head.folder / 'both'}"

    def use() -> tuple[str, str, bytes | None, str]:
        store = open_store(url)
        assert isinstance(store.backend, Retrying)
        return type(store.backend.inner).__name__, store.url, store.read("runs/demo/file"), store.put_blob(LARGE)

    open_store(url).publish("runs/demo/file", b"from the head")
    assert use() == ("LocalBackend", url, b"from the head", sha256(LARGE))
    assert head.elsewhere(use) == ("HeadBackend", url, b"from the head", sha256(LARGE))
    assert (head.folder / "both" / layout.blob(sha256(LARGE))).read_bytes() == LARGE


def test_writers_at_the_head_and_elsewhere_race_for_the_same_names(head: RunningHead) -> None:
    folder = head.folder / "mixed"
    ways = (lambda: open_store(f"head://{folder}"), lambda: Store(LocalBackend(folder)))
    check(head.race_with(lambda writer: ways[writer % 2](), writers=4, rounds=10), writers=4, rounds=10)


def test_no_file_is_ever_whole_in_memory(head: RunningHead, tmp_path: Path) -> None:
    size = 2 * MEMORY_BYTES
    file, back, url = tmp_path / "file", tmp_path / "back", f"head://{head.folder / 'memory'}"
    with file.open("wb") as out:
        for _ in range(size // len(LARGE) + 1):
            out.write(LARGE)

    def transfer() -> int:
        store = open_store(url)
        store.exists("runs/demo/none")
        before = peak_bytes()
        store.get_file(store.put_blob(Content(file)), back)
        return peak_bytes() - before

    Store(HeadBackend(str(head.folder / "memory"))).exists("runs/demo/none")
    before = in_server(peak_bytes)
    assert head.elsewhere(transfer) < MEMORY_BYTES
    assert in_server(peak_bytes) - before < MEMORY_BYTES
    assert back.read_bytes() == file.read_bytes()


class Killing(Content):
    """Kills the actor's process in the middle, the first time it is read."""

    def __init__(self, source: bytes) -> None:
        super().__init__(source)
        self.process: int | None = in_server(os.getpid)

    def __iter__(self) -> Iterator[memoryview]:
        for number, part in enumerate(super().__iter__()):
            if number == 4 and self.process is not None:
                os.kill(self.process, signal.SIGKILL)
                self.process = None
            yield part


def test_an_upload_whose_other_end_is_killed_is_sent_again(head: RunningHead) -> None:
    store = head.open("killed")
    store.publish(KEY, b"stood")
    content = Killing(LARGE)
    store.backend.publish(KEY, content)
    assert content.process is None
    assert store.read(KEY) == LARGE


def test_a_download_whose_other_end_is_killed_goes_on_where_it_was(head: RunningHead) -> None:
    store = head.open("killed")
    store.backend.publish(KEY, Content(LARGE))
    parts = store.backend.parts(KEY)
    assert parts is not None
    found = [bytes(next(parts)), bytes(next(parts))]
    os.kill(in_server(os.getpid), signal.SIGKILL)
    assert b"".join([*found, *map(bytes, parts)]) == LARGE


def test_an_actor_that_is_gone_for_good_is_made_anew(head: RunningHead) -> None:
    store = head.open("gone")
    store.publish(KEY, b"kept")
    ray.kill(server(), no_restart=True)
    assert store.read(KEY) == b"kept"


def test_a_writer_that_breaks_off_leaves_nothing_open(head: RunningHead) -> None:
    class BrokenError(Exception):
        pass

    class Broken(Content):
        def __iter__(self) -> Iterator[memoryview]:
            for number, part in enumerate(super().__iter__()):
                yield part
                if number == 2:
                    raise BrokenError

    store = head.open("broken")
    with pytest.raises(BrokenError):
        store.backend.publish(KEY, Broken(LARGE))
    store.backend.publish(KEY, Content(LARGE))
    parts = store.backend.parts(KEY)
    assert parts is not None
    next(parts)
    parts.close()
    deadline = time.monotonic() + 30
    while in_server(open_files, "/broken/") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert in_server(open_files, "/broken/") == []
    assert list(store.backend.leftovers()) == []


@pytest.fixture
def fake(request: pytest.FixtureRequest, head: RunningHead) -> Iterator[Any]:
    actor = ray.remote(Fake).options(num_cpus=0).remote(request.param)
    yield actor
    ray.kill(actor)


@pytest.mark.parametrize("fake", [None], indirect=True)
def test_a_head_that_does_not_answer_is_down_after_a_while(fake: Any) -> None:
    with pytest.raises(StoreDownError, match="the head does not answer"):
        HeadBackend("/nowhere", fake, call_seconds=0.2).size(KEY)


@pytest.mark.parametrize(
    "fake",
    [kind("what", where="/disk", mend="mend") for kind in (StoreFullError, StoreDownError, NotExclusiveError)],
    indirect=True,
)
def test_what_goes_wrong_over_there_goes_wrong_here(fake: Any, request: pytest.FixtureRequest) -> None:
    raised = request.node.callspec.params["fake"]
    with pytest.raises(StoreError) as caught:
        HeadBackend("/nowhere", fake).put_if_absent(KEY, b"")
    assert type(caught.value) is type(raised)
    assert (caught.value.what, caught.value.where, caught.value.mend) == ("what", "head:///nowhere: /disk", "mend")


@pytest.mark.parametrize("fake", [KeyError("ours")], indirect=True)
def test_our_own_mistakes_over_there_are_no_trouble_of_the_store(fake: Any) -> None:
    with pytest.raises(RayTaskError, match="ours"):
        HeadBackend("/nowhere", fake).size(KEY)


def test_a_disk_over_there_that_cannot_be_used_is_named(head: RunningHead) -> None:
    (head.folder / "a file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot be used") as caught:
        head.open("a file").publish(KEY, b"")
    assert str(head.folder / "a file") in caught.value.where
    with pytest.raises(StoreError, match="cannot be used"):
        head.open("a file").backend.publish(KEY, Content(LARGE))


def test_a_path_that_is_not_whole_is_refused() -> None:
    for url in ("head://store", "head://"):
        with pytest.raises(UserError, match="three slashes"):
            open_store(url)


def test_without_a_cluster_this_machine_is_the_head_but_not_in_a_process_of_some_cluster(tmp_path: Path) -> None:
    code = (
        "import os; from shared_store.store import open_store; url = 'head://' + os.getcwd()\n"
        "open_store(url).publish('runs/demo/file', b'here')\n"
        "os.environ['RAY_RAYLET_PID'] = '1'; open_store(url)"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (tmp_path / "runs" / "demo" / "file").read_bytes() == b"here"
    assert "runs in a Ray cluster and is not connected" in ended.stderr
    assert "--fleet.address auto" in ended.stderr


def test_one_committer_for_the_cluster_makes_a_careless_disk_exclusive(head: RunningHead) -> None:
    root = head.folder / "careless"

    def opened(_writer: int) -> Store:
        return Store(Retrying(committed_by_one(LooksThenWrites(root), partial(LooksThenWrites, root))))

    check(head.race_with(opened, writers=8, rounds=10), writers=8, rounds=10)
    store = opened(0)
    assert store.put_if_absent("results/one.json", b"first")
    assert store.put_if_absent("results/one.json", b"first"), "an own write whose acknowledgement was lost"
    assert not store.put_if_absent("results/one.json", b"second")


def test_a_fold_on_another_machine_keeps_its_result_on_the_heads_disk(head: RunningHead, tmp_path: Path) -> None:
    """In single-committer mode too: the one committer reaches the disk as everyone on its machine does."""
    url = f"head://{head.folder / 'folds'}"
    section = FleetSection(address=head.address, slots=1)
    fleet = RayFleet(section, StoreSection(url=url), str(tmp_path / "cache"), no_search, single_committer=True)
    store = open_store(url)
    machines: list[str] = []
    deadline = time.monotonic() + 120
    while len(machines) < 2 and time.monotonic() < deadline:  # each joins when its probe has answered
        joined = [fact for fact in [*fleet.discover(), *fleet.poll()] if isinstance(fact, MachineJoined)]
        machines += [fact.machine for fact in joined if "train" in fact.kinds]
    on_one_host = sorted(machines, key=len)  # the second of one host has its node's name on top
    other = next((name for name in machines if name.endswith(head.other_node[:6])), on_one_host[0])
    task = tiny_task(store, "teacher/fold0")
    fleet.start(Start(task_id(task), other, 0, 1), task)
    ends: list[TaskEnded] = []
    while not ends and time.monotonic() < deadline:
        ends = [fact for fact in fleet.poll() if isinstance(fact, TaskEnded)]
    assert [end.outcome.failure for end in ends] == [None], ends
    assert read_result(store, task_id(task)) is not None
    assert ray.get_actor(f"committer 1 {url}", namespace="foldfleet") is not None
    fleet.close()
    assert head.open("folds").exists(layout.result(task_id(task))), "who was connected stays so"


def no_search(*_: object) -> Any:
    raise AssertionError("no search was asked for")


def test_a_run_is_looked_at_from_any_machine_of_the_fleet(head: RunningHead, tmp_path: Path) -> None:
    url = f"head://{head.folder / 'finished'}"
    run = finished_run(open_store(url), Cache(tmp_path / "cache", limit_gb=1.0))
    run.store.publish(layout.run_file("demo", "config.yaml"), to_yaml(run.experiment))
    run.data.record(run.store, "demo")
    words = ["--store", url, "--run", "demo", "--fleet.address", head.address]

    def look() -> tuple[int, str]:
        with contextlib.redirect_stdout(io.StringIO()) as told, contextlib.redirect_stderr(told):
            return status.main(words), told.getvalue()

    code, told = head.elsewhere(look)
    assert code == 0, told
    assert "tasks of the run demo are done" in told
