"""A machine says what it is and can do, from a real process, disk and store; what fails is told and not raised."""

from __future__ import annotations

import platform
import socket
from collections.abc import Iterator
from functools import partial

import pytest
import torch

from shared_store.errors import StoreDownError
from shared_store.store import Store, open_store
from workers.examine import Question, examine, proxies_between, tried_store
from workers.examined import Card, Examined
from workers.recipe import Recipe

TINY = Recipe(model="test_efficientnet", weights="none", image_size=32, batch_size=2)
NONE_SUCH = TINY.model_copy(update={"model": "no_such_network"})
CARD = Card(0, "GPU-1", "GTX 1060", "6.1", "576.02", 6.4, 0.1, 40.0)


@pytest.fixture(scope="module")
def door() -> Iterator[str]:
    """A port at which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory, door: str) -> Examined:
    folder = tmp_path_factory.mktemp("machine")
    question = Question({"tiny": TINY, "none": NONE_SUCH}, 1, str(folder / "cache" / "deep"), (door, "127.0.0.1:1"))
    environment = {"HTTPS_PROXY": "http://p:3128", "no_proxy": "example.org"}
    opens = partial(open_store, str(folder / "store"))
    found = examine(question, opens, folder, seen_cards=lambda: [CARD], environment=environment, clock=lambda: 77.0)
    assert [path for path in (folder / "store").rglob("*") if path.is_file()] == []  # what was tried is gone
    return found


def test_it_says_what_it_is(examined: Examined) -> None:
    assert examined.host == socket.gethostname() and examined.system == platform.system().lower()
    assert examined.versions["python"] == platform.python_version()
    assert examined.versions["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert examined.cards == (CARD,) and examined.unix_seconds == 77.0 and examined.took_seconds > 0
    assert len(examined.machine_id) == 16 and len(examined.code) == 8


def test_it_says_what_torch_was_built_for_also_where_no_card_can_be_used(examined: Examined) -> None:
    assert examined.torch_cuda == torch.version.cuda
    assert bool(examined.torch_architectures) == (torch.version.cuda is not None)
    assert all(name.startswith(("sm_", "compute_")) for name in examined.torch_architectures)


def test_a_recipe_is_really_trained_and_one_that_cannot_be_says_why(examined: Examined) -> None:
    tiny, none = (one for one in examined.trained if one.device == examined.trained[0].device)
    assert tiny.recipe == "tiny" and tiny.step_seconds and tiny.image_seconds and not tiny.failure
    assert none.recipe == "none" and none.step_seconds is None and "no_such_network" in none.failure
    assert examined.probe_speed is not None and examined.probe_speed > 0


def test_a_store_is_written_read_and_raced_for(examined: Examined) -> None:
    store = examined.store
    assert store is not None and not store.failure and not store.not_exclusive
    assert store.write_mb_per_second and store.read_mb_per_second


def test_doors_that_open_and_that_do_not_are_told_apart(examined: Examined, door: str) -> None:
    opened, shut = examined.reached
    assert opened.door == door and opened.seconds is not None and not opened.failure
    assert shut.seconds is None and shut.failure


def test_free_disk_is_told_of_a_folder_that_is_not_there_yet(examined: Examined) -> None:
    assert len(examined.free_disk_gb) == 2 and all(free > 0 for free in examined.free_disk_gb.values())


def test_a_proxy_that_the_machines_are_not_exempt_from_is_told(examined: Examined) -> None:
    assert examined.proxies == {"https_proxy": "http://p:3128"}


@pytest.mark.parametrize("exempt", ["*", "127.0.0.1", ".0.0.1,example.org"])
def test_a_proxy_that_they_are_exempt_from_is_not(exempt: str) -> None:
    environment = {"https_proxy": "http://p:3128", "NO_PROXY": exempt}
    assert proxies_between(environment, ["127.0.0.1:1"]) == {}


def test_a_store_that_is_not_there_is_told_with_what_to_do() -> None:
    def opens() -> Store:
        raise StoreDownError("it does not answer", where="sftp://far/x", mend="switch it on")

    store = tried_store(opens)
    assert store.failure == "it does not answer (sftp://far/x)" and store.mend == "switch it on"
