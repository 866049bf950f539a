"""Who a machine is, whatever its address: 16 hexadecimal digits in a file of its own, made once."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path

from shared_store.errors import UserError

_BYTES = 8


def machine_id(folder: Path) -> str:
    """This machine's id below `folder` (~/.foldfleet): made if there is none, the same ever after."""
    path = folder / "machine_id"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        draft = folder / f"machine_id.{secrets.token_hex(_BYTES)}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_BYTES))
        with contextlib.suppress(FileExistsError):  # another command was faster: its id is the machine's
            os.link(draft, path)
        draft.unlink()
    text = path.read_text(encoding="ascii", errors="replace").strip()
    if not re.fullmatch(f"[0-9a-f]{{{2 * _BYTES}}}", text):
        raise UserError(
            "the machine's id is damaged", where=str(path), mend="remove that file: the machine is new then"
        )
    return text
