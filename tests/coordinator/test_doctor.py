"""Every machine is asked the same, over SSH; who does not answer is named with why; the table fits a terminal."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path

import pytest
from examined_support import SOUND
from rich.console import Console

from coordinator.config import Experiment, parse
from coordinator.doctor import from_text, to_text
from coordinator.doctor_ssh import OverSsh, command_words
from coordinator.doctor_view import next_step, show_findings, summary
from coordinator.findings import Finding, failed, warned, well
from coordinator.fleet_file import FleetFile
from coordinator.measured import FILE
from coordinator.remote import Answer
from coordinator.roster import Member
from coordinator.roster import to_text as roster_text
from jobs.arguments import split_off_sections
from shared_store.errors import UserError

HEAD, FIRST, SECOND = "10.0.0.1", "10.0.0.2", "10.0.0.3"
EXPERIMENT = parse(
    "{recipe: {image_size: 64, augmentation: {flip: 0.0}}, recipes: {b0: {model: resnet18}, b1: {epochs: 2}},"
    " store: {url: 'head:///srv/it is'}, fleet: {pin: {fold0: attic}, address: 'x:1'}}",
    "here",
)

NO_RAY = UserError("no Ray cluster answers", where="fleet.address auto", mend="begin it")


class Machines:
    """Three machines: the head and the second are in the fleet, the first does not answer as it should."""

    def __init__(self) -> None:
        self.asked: dict[str, list[str]] = {HEAD: [], FIRST: [], SECOND: []}
        self.first = Answer(255, "", "no route to host")
        self.of_head: Answer | None = None  # instead of who is there

    def ask(self, address: str, command: str, _seconds: float) -> Answer:
        self.asked[address].append(command)
        if command.startswith("foldfleet machines") and self.of_head is not None:
            return self.of_head
        if command.startswith("foldfleet machines"):
            members = [
                Member("n1", "m1", "head", HEAD, alive=True, doors=(f"{HEAD}:41", f"{HEAD}:42")),
                Member("n2", "m2", "desk", SECOND, alive=True, doors=(f"{SECOND}:51",)),
                Member("n3", "m3", "attic", FIRST, alive=False, doors=(f"{FIRST}:61",)),
            ]
            return Answer(0, f"Welcome!\n{roster_text(members)}\n", "")
        if command.startswith("foldfleet doctor"):
            return self.first if address == FIRST else Answer(0, f"Welcome!\n{to_text(SOUND)}\n", "")
        return Answer(0, "", "")

    def way(self) -> OverSsh:
        fleet = FleetFile.model_validate(
            {
                "cluster_name": "f",
                "provider": {"type": "local", "head_ip": HEAD, "worker_ips": [FIRST, SECOND]},
                "auth": {"ssh_user": "you", "ssh_private_key": "~/key"},
            }
        )
        return OverSsh(fleet, self.ask, lambda _sentence: None, clock=lambda: 5.0)


def test_every_machine_is_asked_the_same_by_a_command_that_says_the_whole_experiment() -> None:
    machines = Machines()
    machines.way().examined(EXPERIMENT, with_store=True)
    commands = {address: shlex.split(asked[-1]) for address, asked in machines.asked.items()}
    for words in commands.values():
        assert words[:3] == ["foldfleet", "doctor", "--json"]
        _, overrides = split_off_sections(words[3:], "foldfleet doctor")
        told = parse("", "there", overrides)
        assert told.variants() == EXPERIMENT.variants() and told.fleet.pin == EXPERIMENT.fleet.pin
    assert f"--reach={SECOND}:51" in commands[HEAD] and f"--reach={HEAD}:41,{HEAD}:42" in commands[SECOND]


def test_a_store_on_the_head_is_asked_of_those_that_are_in_the_fleet() -> None:
    machines = Machines()
    machines.way().examined(EXPERIMENT, with_store=True)
    assert "--store.url=head:///srv/it is" in shlex.split(machines.asked[SECOND][-1])
    assert "--fleet.address=auto" in shlex.split(machines.asked[SECOND][-1])
    assert "store.url" not in machines.asked[FIRST][-1]
    anywhere = EXPERIMENT.model_copy(update={"store": EXPERIMENT.store.model_copy(update={"url": "sftp://h/x"})})
    machines.way().examined(anywhere, with_store=True)
    assert "--store.url=sftp://h/x" in machines.asked[FIRST][-1]


def test_without_a_store_none_is_asked_for() -> None:
    words = command_words(Experiment(), with_store=False, doors=())
    assert words == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(255, "", "no route to host"), "SSH: no route to host"),
        (Answer(127, "", "foldfleet: command not found"), "foldfleet does not run there: foldfleet: command not found"),
        (Answer(124, "", "no answer within 300 s"), "no answer within 300 s"),
        (Answer(2, "Welcome!", f"motd\nfoldfleet doctor: {NO_RAY}"), "no Ray cluster answers (fleet.address auto)"),
        (Answer(2, "", "foldfleet: error: unrecognized arguments: --reach"), "does not run there: foldfleet: error"),
        (Answer(0, 'examined: {"host": "of another version"}', ""), "foldfleet does not run there"),
    ],
)
def test_a_machine_that_gives_no_answer_is_named_with_why(answer: Answer, words: str) -> None:
    machines = Machines()
    machines.first = answer
    head, first, second = machines.way().examined(EXPERIMENT, with_store=False)
    assert (head.machine, second.machine) == ("head", "desk") and head.in_fleet and second.examined == SOUND
    assert first.examined is None and words in first.failure and first.mend
    assert ("does not run there" in words) == ("does not run there" in first.failure)


def test_a_machine_that_says_itself_what_to_mend_has_its_own_words_told() -> None:
    machines = Machines()
    machines.first = Answer(2, "", f"foldfleet doctor: {NO_RAY}")
    first = machines.way().examined(EXPERIMENT, with_store=False)[1]
    assert first.mend == "begin it (on that machine)"


def test_a_machine_outside_of_the_fleet_is_examined_all_the_same() -> None:
    machines = Machines()
    machines.first = Answer(0, to_text(SOUND), "")
    first = machines.way().examined(EXPERIMENT, with_store=False)[1]
    assert first.examined == SOUND and first.in_fleet is False and first.machine == f"{SOUND.host} ({FIRST})"


@pytest.mark.parametrize("code", [124, 255])
def test_a_head_that_is_not_heard_says_of_nobody_that_it_is_not_in_the_fleet(code: int) -> None:
    machines = Machines()
    machines.of_head = Answer(code, "", "late")
    assert [answer.in_fleet for answer in machines.way().examined(EXPERIMENT, with_store=False)[::2]] == [None, None]
    machines.of_head = Answer(2, "", "no Ray answers")
    assert [answer.in_fleet for answer in machines.way().examined(EXPERIMENT, with_store=False)[::2]] == [False, False]


def test_what_was_measured_is_kept_on_the_head() -> None:
    machines = Machines()
    machines.way().keep('{"machines": {}}')
    assert shlex.split(machines.asked[HEAD][-1])[-3:] == ['{"machines": {}}', ">", f"~/{FILE}"]


def test_an_answer_survives_its_way_and_words_around_it() -> None:
    assert from_text(f"motd\n{to_text(SOUND)}\nbye") == SOUND
    assert json.loads(to_text(SOUND).partition(" ")[2])["host"] == SOUND.host
    assert from_text("bash: foldfleet: command not found") is None


def shown(findings: list[Finding]) -> str:
    console = Console(file=io.StringIO(), width=100)
    show_findings(console, findings)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_what_all_say_is_one_line_and_what_is_wrong_has_its_remedy_below() -> None:
    text = shown(
        [
            well("head", "Python", "3.11.7"),
            well("attic", "Python", "3.11.7"),
            well("head", "disk", "90 GB"),
            failed("attic", "disk", "0.1 GB free at /a", "free some space there"),
            warned("attic", "proxy", "http_proxy=x [y]", "no_proxy"),
        ]
    )
    lines = [line.rstrip() for line in text.splitlines()]
    assert any(line.split() == ["ok", "Python", "all", "3.11.7"] for line in lines)
    place = next(number for number, line in enumerate(lines) if line.startswith("fail"))
    assert "attic" in lines[place] and lines[place + 1].strip() == "-> free some space there"
    assert "http_proxy=x [y]" in text and max(map(len, lines)) <= 100


def test_long_words_are_folded_to_the_terminal() -> None:
    text = shown([failed("attic", "store", "x" * 300, "y " * 150)])
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100 and text.count("x") == 300


def test_the_summary_counts_machines_and_faults() -> None:
    assert summary([well("a", "c", ""), failed("b", "c", "", ""), warned("b", "d", "", "")]) == (
        "2 machines examined: 1 fail, 1 warn"
    )
    assert summary([well("a", "c", "")]) == "1 machine examined: 0 fail, 0 warn"


@pytest.mark.parametrize(
    ("where", "store", "config", "words"),
    [
        ("", None, None, "foldfleet pipeline PHOTOS"),
        ("", "/my store", None, "foldfleet pipeline PHOTOS --store '/my store'"),
        (
            "f.yaml",
            None,
            "a.yaml",
            "ray submit f.yaml jobs/pipeline.py -- PHOTOS --config a.yaml --fleet.address auto"
            " --store head:///home/USER/store",
        ),
        ("h:6379", "s3://b/p", None, "foldfleet pipeline PHOTOS --fleet.address h:6379 --store s3://b/p"),
    ],
)
def test_the_next_step_is_the_run_where_it_can_be_typed(
    where: str, store: str | None, config: str | None, words: str
) -> None:
    assert next_step(where, store, config) == words


def test_the_file_of_a_fleet_says_how_its_machines_are_reached(tmp_path: Path) -> None:
    from coordinator.remote import remote_of

    remote = remote_of(Machines().way().fleet)
    assert remote.user == "you" and remote.key.name == "key" and not str(remote.key).startswith("~")
