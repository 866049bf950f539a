"""What a machine says of itself when it is examined: facts that go from machine to machine, judged elsewhere. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True)
class Holder:
    """A process that uses a card. Only its owner, or nobody, may be told what it is and takes: None then."""

    pid: int
    program: str
    memory_gb: float | None


@dataclass(frozen=True)
class Card:
    """One card, in GB of 1e9 bytes. What the driver does not say is None."""

    index: int  # as the driver counts: in the order of the bus
    uuid: str
    name: str
    capability: str  # "6.1"; empty: the driver is too old to say
    driver: str
    memory_gb: float | None
    used_gb: float | None
    temperature_celsius: float | None
    holders: tuple[Holder, ...] = ()


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True)


class Trained(_Facts):
    """A few steps of one recipe on one device: what they took, or how they failed."""

    recipe: str  # its name; "" of the only one
    device: str  # "cpu", "cuda:0"
    bits: int  # in which `precision: auto` trains there
    step_seconds: float | None = None
    image_seconds: float | None = None  # of predicting one image
    failure: str = ""


class StoreFacts(_Facts):
    """What the store did for this machine: its speed both ways, or how it failed."""

    write_mb_per_second: float | None = None
    read_mb_per_second: float | None = None
    not_exclusive: str = ""  # why several writers may win
    failure: str = ""
    mend: str = ""


class Reached(_Facts):
    """One door of another machine, tried from here: how long until it opened, or why it did not."""

    door: str  # "HOST:PORT"
    seconds: float | None = None
    failure: str = ""


class Examined(_Facts):
    """One machine. What was not asked, or what the system does not tell, is None or empty."""

    host: str
    system: str  # "linux", "windows", "darwin"
    machine_id: str
    versions: dict[str, str]  # of Python and packages; one that is missing is not there
    code: str  # of foldfleet's own modules: the first digits of a hash
    cpus: int
    memory_gb: float | None
    cards: tuple[Card, ...]
    torch_cuda: str | None  # the CUDA that torch was built for; None: for processors alone
    torch_architectures: tuple[str, ...]  # "sm_75", "compute_90"
    probe_speed: float | None
    free_disk_gb: dict[str, float]  # by folder
    trained: tuple[Trained, ...]
    store: StoreFacts | None
    reached: tuple[Reached, ...]
    proxies: dict[str, str]  # variables that send connections elsewhere
    unix_seconds: float  # its clock, when it was asked
    took_seconds: float = 0.0  # from then until it answered

    @property
    def cards_of_torch(self) -> tuple[str, ...]:
        """The cards that torch could begin to train on, as it calls them: "cuda:0"."""
        return tuple(sorted({one.device for one in self.trained} - {"cpu"}))
