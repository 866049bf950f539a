"""What runs on a machine of the fleet runs on Windows too: no call that it lacks, no path on the wire."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import typing
from pathlib import Path, PurePath
from types import ModuleType

import pytest
from windows_reader import imported, missing_on_windows

import coordinator.events
import shared_store.relayed
import workers.nursery
import workers.run
import workers.slot
import workers.tasks

ROOT = Path(__file__).parents[1]
ROOMS = {path for room in ("workers", "shared_store") for path in (ROOT / room).glob("*.py")}
FILES = sorted(ROOMS | imported(ROOT / "jobs" / "join.py", ROOT))
WIRE = (workers.tasks, workers.run, workers.slot, workers.nursery, coordinator.events, shared_store.relayed)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_nothing_is_called_that_windows_lacks(path: Path) -> None:
    assert missing_on_windows(path.read_text(encoding="utf-8")) == []


def test_what_join_imports_is_looked_at_as_well() -> None:
    assert {ROOT / "coordinator" / "joining.py", ROOT / "coordinator" / "access.py"} <= set(FILES)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import os\nos.fork()", "os.fork"),
        ("import os as system\ndef f():\n    return system.getuid()", "os.getuid"),
        ("from os import sysconf", "os.sysconf"),
        ("from signal import SIGKILL as last", "signal.SIGKILL"),
        ("import signal\nsignal.signal(signal.SIGUSR1, print)", "signal.SIGUSR1"),
        ("import time\nclock = lambda thread: time.pthread_getcpuclockid(thread)", "time.pthread_getcpuclockid"),
        ("import os\ndef f(flags=os.O_DIRECTORY): ...", "os.O_DIRECTORY"),
        ("def f():\n    import fcntl", "fcntl"),
        ("from resource import getrusage", "resource"),
        ("import os\nos.waitpid(1, os.WNOHANG)", "os.WNOHANG"),
        ("import os\nflags = 1\nos.waitpid(1, flags)", "os.waitpid with options"),
        ("import ctypes\nctypes.CDLL(None).mallopt(1, 2)", "ctypes.CDLL(None)"),
        ("import multiprocessing\nmultiprocessing.get_context('fork')", "multiprocessing's fork"),
        ("import subprocess\nsubprocess.run(['ls'], preexec_fn=print)", "preexec_fn"),
        ("def f(loop):\n    loop.add_signal_handler(2, print)", "add_signal_handler"),
        ("import os, sys\nif sys.platform == 'win32':\n    os.getuid()", "os.getuid"),
        ("import os, sys\nif sys.platform != 'linux':\n    os.getuid()", "os.getuid"),
        ("import os, sys\nif sys.platform == 'linux':\n    pass\nelse:\n    os.getuid()", "os.getuid"),
        ("import os, sys\nif sys.platform == 'linux':\n    pass\nos.getuid()", "os.getuid"),
        ("import os, sys\nif sys.platform == 'linux' or len(sys.argv) > 1:\n    os.getuid()", "os.getuid"),
        ("import os, sys\nif sys.platform in ('win32', 'linux'):\n    os.getuid()", "os.getuid"),
        ("import os, sys\nwho = os.getuid() if sys.platform == 'win32' else 0", "os.getuid"),
        ("import os, sys\ndef f():\n    if sys.platform == 'linux':\n        return\n    os.getuid()", "os.getuid"),
        ("import os, sys\ndef f():\n    os.getuid()\n    assert sys.platform != 'win32'", "os.getuid"),
        ("import os, sys\ndef f():\n    assert sys.platform != 'win32'\ndef g():\n    os.getuid()", "os.getuid"),
        ("import os\n# sys.platform is not asked\nos.getuid()", "os.getuid"),
        ("import os\ntry:\n    os.getuid()\nexcept OSError:\n    pass", "os.getuid"),
        ("import os\ntry:\n    pass\nexcept AttributeError:\n    os.getuid()", "os.getuid"),
        ("import os\ntry:\n    def f():\n        os.fork()\nexcept AttributeError:\n    pass", "os.fork"),
        ("import os\ntry:\n    import fcntl\nexcept ImportError:\n    pass\nfcntl.flock(0, 0)", "fcntl.flock"),
    ],
)
def test_what_windows_lacks_is_found(source: str, what: str) -> None:
    assert what in [found for _, found in missing_on_windows(source)]


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.waitpid(1, 0)\nos.getpid()\nos.link('a', 'b')",
        "import os, sys\nif sys.platform != 'win32':\n    os.getuid()",
        "import os, sys\nif sys.platform == 'win32':\n    pass\nelse:\n    os.getuid()",
        "import os, sys\nif sys.platform in ('linux', 'darwin') and os.getuid() == 0:\n    os.chroot('/')",
        "import os, sys\nif not sys.platform == 'win32':\n    os.getuid()",
        "import os, sys\nif sys.platform == 'win32' or os.getuid() == 0:\n    pass",
        "import os, sys\nwho = os.getuid() if sys.platform != 'win32' else 0",
        "import os, sys\nPOSIX = sys.platform != 'win32'\ndef f():\n    if POSIX:\n        os.getuid()",
        "import os, sys\ndef f():\n    if sys.platform == 'win32':\n        return 0\n    return os.getuid()",
        "import os, sys\ndef f(x):\n    if sys.platform == 'win32':\n        if x:\n            return 0\n"
        "        else:\n            raise OSError\n    return os.getuid()",
        "import os, sys\ndef f():\n    assert sys.platform != 'win32'\n    return os.getuid()",
        "import os\ntry:\n    who = os.getuid()\nexcept AttributeError:\n    who = 0",
        "import os\nfrom contextlib import suppress\nwith suppress(AttributeError):\n    os.getuid()",
        "try:\n    import fcntl\nexcept ImportError:\n    pass",
        "import os\ntry:\n    from os import getuid\nexcept ImportError:\n    pass",
        "from __future__ import annotations\nimport signal\ndef f(which: signal.SIGKILL) -> signal.SIGKILL: ...",
    ],
)
def test_what_only_other_systems_get_to_is_passed_over(source: str) -> None:
    assert missing_on_windows(source) == []


def crossing(module: ModuleType) -> list[type]:
    """The dataclasses that a module has of its own."""
    own = [found for _, found in inspect.getmembers(module, inspect.isclass) if found.__module__ == module.__name__]
    return [found for found in own if dataclasses.is_dataclass(found)]


def parts(hint: object) -> set[type]:
    """Every class that a type's words name, inside unions and containers too."""
    below = typing.get_args(hint)
    return set().union(*map(parts, below)) if below else {hint} if isinstance(hint, type) else set()


def with_paths(kind: type) -> set[str]:
    hints = typing.get_type_hints(kind)
    fields = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return {name for name in fields if any(issubclass(part, PurePath) for part in parts(hints[name]))}


@pytest.mark.parametrize("kind", [kind for module in WIRE for kind in crossing(module)], ids=lambda kind: kind.__name__)
def test_paths_cross_the_wire_as_strings(kind: type) -> None:
    assert with_paths(kind) == set()


def test_a_path_in_any_field_is_found() -> None:
    @dataclasses.dataclass
    class Wrong:
        name: str
        folder: Path
        files: tuple[Path, ...]
        maybe: dict[str, Path | None]

    assert with_paths(Wrong) == {"folder", "files", "maybe"}


@pytest.mark.parametrize("path", sorted(ROOMS), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_photos_are_read_by_threads_and_never_by_a_data_loader_s_processes(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert "DataLoader" not in names
