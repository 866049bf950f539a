"""`foldfleet up` and `down`: what Ray's own launcher leaves open.

Ray's `up` returns 0 when the head alone is there, restarts a fleet at work or does not start a head that lost its
power, depending on one flag, starts one worker too few without a variable, and its `down` stops the head only.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from coordinator.access import TEMPORARY, ensure_token, ray_environment
from coordinator.fleet_file import FleetFile
from coordinator.remote import Answer, Ask
from coordinator.roster import alive_there
from shared_store.errors import RunFailedError, UserError

JOIN_LOG = "~/.foldfleet/join.log"  # cluster.yaml's start commands write it on every machine
_LAUNCH_SECONDS = 1800.0  # the first time every machine downloads torch
_ASK_SECONDS = 30.0
_POLL_SECONDS = 2.0
_LACKS = "it lacks "
_NEEDED = f"for needed in rsync python3; do command -v $needed > /dev/null || echo {_LACKS}$needed; done"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LAUNCHERS = re.compile(r"\d{4}-\d\d-\d\d |\s|Traceback|Shared connection|click\.|Warning: Permanently|Error: Failed")
# Ray's own processes, and those that tasks ran in: they end by themselves a moment after their actor
_PROCESSES = "[r]aylet/raylet|[g]cs_server|foldfleet-env/bin/python.*[s]pawn_main"
ENDED = (
    f"for wait in 1 1 1 1 1 0; do left=$(pgrep -l -u $(id -u) -f '{_PROCESSES}'); "
    'test -z "$left" && break; sleep $wait; done; test -z "$left" || { echo still there: $left; false; }'
)
_STOP = f"ray stop --force > /dev/null 2>&1; rm -rf /tmp/ray /tmp/ray_ssh_* ~/{TEMPORARY}; {ENDED}"
Say = Callable[[str], None]
Launch = Callable[[Sequence[str], dict[str, str]], tuple[int, str]]  # Ray's launcher: exit code and words


@dataclass(frozen=True)
class Launcher:
    """One fleet, from the machine at which a person sits."""

    path: Path  # of cluster.yaml
    fleet: FleetFile
    ask: Ask
    launch: Launch
    log: Path  # what Ray's launcher says
    say: Say
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def up(self, home: Path, wait_seconds: float) -> None:
        """Bring every named machine into the fleet. RunFailedError names those that did not come, and why.

        A fleet at work is not disturbed; machines that it lost are begun again.
        """
        ensure_token(home)
        reached = self._check_machines()
        head = self.fleet.provider.head_ip
        if head in reached:
            raise UserError(f"the head does not do: {reached[head]}", where=head, mend=self._ssh_line(head))
        keep = ["--no-restart"] if self._at_work(head) else []
        self.say(f"ray up: {'the head is at work' if keep else 'the head begins'}, {len(self.fleet.machines)} machines")
        code, said = self.launch(["up", "-y", "--no-config-cache", *keep, str(self.path)], _launcher_environment())
        if code:
            said_there = "\n  ".join(_words(said)[-8:])
            what = f"`ray up` failed with exit code {code}:\n  {said_there}\n"
            raise UserError(what, where=f"{self.path}, {head}", mend=f"mend that; the whole log is {self.log}")
        self._await(wait_seconds)

    def down(self) -> None:
        """Stop Ray on every named machine. RunFailedError names those where that is not sure."""
        code, _ = self.launch(["down", "-y", str(self.path)], _launcher_environment())
        if code:
            self.say(f"ray down: exit code {code} ({self.log}); going on with each machine")
        left = {address: answer.why for address, answer in self._everywhere(_STOP, 90.0).items() if answer.code}
        if left:
            lines = "\n".join(f"  {address}: {why}" for address, why in left.items())
            raise RunFailedError(f"not stopped for sure:\n{lines}\nnext: the same command when they can be reached")

    def _check_machines(self) -> dict[str, str]:
        """What is wrong with which machine, before anything is begun."""
        wrong: dict[str, str] = {}
        for address, answer in self._everywhere(_NEEDED, _ASK_SECONDS).items():
            lacks = [line for line in answer.output.splitlines() if line.startswith(_LACKS)]  # a login shell greets
            if answer.code or lacks:
                wrong[address] = answer.why if answer.code else ", ".join(lacks)
        for address, why in wrong.items():
            self.say(f"{address}: {why}")
        return wrong

    def _await(self, wait_seconds: float) -> None:
        """Wait until every named machine is alive."""
        deadline, before = self.clock() + wait_seconds, -1
        while True:
            there, answer = alive_there(self.ask, self.fleet.provider.head_ip)
            alive = there or {}
            missing = [address for address in self.fleet.machines if address not in alive]
            if len(alive) != before:
                self.say(f"{len(self.fleet.machines) - len(missing)} of {len(self.fleet.machines)} machines are there")
                before = len(alive)
            if not missing:
                return
            if self.clock() > deadline:
                raise RunFailedError(self._why_missing(missing, answer))
            self.sleep(_POLL_SECONDS)

    def _at_work(self, head: str) -> bool:
        """Whether there is a fleet that must not be begun anew: a head that is late says nothing of that."""
        alive, answer = alive_there(self.ask, head)
        if alive is None:
            what = f"the head does not say whether a fleet is at work: {answer.why}"
            raise UserError(what, where=head, mend="try again in a minute")
        return bool(alive)

    def _why_missing(self, missing: Sequence[str], of_head: Answer) -> str:
        """Each machine that did not come, with the reason and the end of its log."""
        lines = [f"{len(missing)} of {len(self.fleet.machines)} machines did not come:"]
        if of_head.code:
            lines.append(f"  the head cannot say who is there: {of_head.why}")
        for address in missing:
            log = self.ask(address, f"tail -n 8 {JOIN_LOG}", _ASK_SECONDS)
            if log.code == 255:
                lines.append(f"  {address}: SSH: {log.why}")
                continue
            lines.append(f"  {address}: {log.why}")
            source, text = (f"{address}:{JOIN_LOG}", log.output) if not log.code else self._launchers_log(address)
            lines += [f"    {source}:", *(f"      {line}" for line in text.strip().splitlines())]
        return "\n".join([*lines, f"next: mend that, then the same command again; {self._ssh_line(missing[0])}"])

    def _launchers_log(self, address: str) -> tuple[str, str]:
        """What the head's launcher wrote of a machine that has no log of its own yet."""
        head, logs = self.fleet.provider.head_ip, "/tmp/ray/session_latest/logs/monitor.*"
        return f"{head}:{logs}", self.ask(head, f"grep -h -A4 {address} {logs} | tail -n 8", _ASK_SECONDS).output

    def _everywhere(self, command: str, seconds: float) -> dict[str, Answer]:
        with ThreadPoolExecutor(max_workers=16) as threads:
            answers = threads.map(lambda address: self.ask(address, command, seconds), self.fleet.machines)
            return dict(zip(self.fleet.machines, answers, strict=True))

    def _ssh_line(self, address: str) -> str:
        return f"try: ssh -i {self.fleet.auth.ssh_private_key} {self.fleet.auth.ssh_user}@{address}"


def launch_by_ray(log: Path, seconds: float = _LAUNCH_SECONDS) -> Launch:
    """Ray's own launcher in a process of its own, 124 when its `seconds` are up; all that it says goes to `log` too."""

    def launch(arguments: Sequence[str], environment: dict[str, str]) -> tuple[int, str]:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w+", encoding="utf-8") as file:
            command = [sys.executable, "-m", "ray.scripts.scripts", *arguments]
            try:
                code = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    timeout=seconds,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                code, _ = 124, file.write(f"no end within {seconds:.0f} s: it was ended\n")
            file.seek(0)
            return code, file.read()

    return launch


def _launcher_environment() -> dict[str, str]:
    # Since Ray 2.50 its default autoscaler starts one worker too few with `provider: local`.
    return {**os.environ, **ray_environment(), "RAY_UP_enable_autoscaler_v2": "0"}


def _words(said: str) -> list[str]:
    """What the machine's own commands printed, without the launcher's timestamps, colours and tracebacks."""
    lines = [_COLOUR.sub("", line).rstrip() for line in said.splitlines()]
    return [line for line in lines if line and not _LAUNCHERS.match(line)]
