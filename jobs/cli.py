"""`foldfleet NAME ...`: the same as `python jobs/NAME.py ...`."""

from __future__ import annotations

import difflib
import importlib
import os
import sys

COMMANDS = {
    "pipeline": "all of it: from a folder of photos to predictions and a report",
    "prepare": "read the photos once, settle duplicates, deal the folds",
    "teacher": "train the fold teachers",
    "distill": "label every photo by the teacher that never saw it",
    "student": "train the fold students",
    "ensemble": "choose the best small ensemble and export it",
    "predict": "predict photos with an exported bundle",
    "plan": "dry run: what would be done",
    "status": "how a run stands, also while it goes on (--watch)",
    "explain": "a task's story: attempts, machines, why each ended",
    "report": "write a run's files and report anew",
    "curves": "learning curves for TensorBoard, MLflow, Weights & Biases",
    "store": "check a store byte by byte, list it, remove what nobody needs",
    "up": "begin the fleet that cluster.yaml names",
    "down": "stop it",
    "machines": "who is in the fleet",
    "doctor": "look at every machine before hours are spent",
    "join": "this machine joins a fleet, or begins one (--head)",
    "drain": "a machine is wanted back: its folds move on, and it leaves",
    "demo": "write the demo photos",
    "completion": "what bash, zsh or fish need to complete these commands",
}


def main() -> int:
    name, arguments = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("", [])
    if name in ("", "-h", "--help"):
        print("usage: foldfleet COMMAND ...      (foldfleet COMMAND --help tells its arguments)\n")
        print("\n".join(f"  {command:12}{what}" for command, what in COMMANDS.items()))
        print("\nnext: foldfleet pipeline PHOTOS --config configs/small.yaml --run NAME    (PHOTOS: a folder a class)")
        return 0 if name else 2
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        mend = f"did you mean {near[0]}?" if near else f"commands: {', '.join(COMMANDS)}"
        print(f"foldfleet: no command {name!r}\n  where: the command line\n  mend:  {mend}", file=sys.stderr)
        return 2
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks an index for news at import otherwise
    module = importlib.import_module(f"jobs.{name}")
    code: int = module.main(arguments)
    return code


if __name__ == "__main__":
    sys.exit(main())
