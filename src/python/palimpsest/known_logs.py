"""The audit logs that were verified before, a line each: as ssh keeps the hosts that it knows."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Known:
    """A log as it was: who signs it, how long it was, and the root over it."""

    key: str
    size: int
    root: bytes


def path() -> Path:
    """The file."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    folder = Path(base) if base.startswith("/") else Path.home() / ".config"
    return folder / "palimpsest/known_logs"


def _lines() -> list[str]:
    try:
        return path().read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []


def read(address: str) -> Known | None:
    """The log of a server, if it is known.

    Raises:
        ValueError: its line is malformed.
    """
    for line in _lines():
        parts = line.split()
        if not parts or parts[0] != address:
            continue
        if len(parts) != 4 or not parts[2].isdigit():
            raise ValueError(f"{path()}: the line of {address} should be ADDRESS KEY SIZE ROOT")
        return Known(parts[1], int(parts[2]), base64.b64decode(parts[3], validate=True))
    return None


def write(address: str, known: Known) -> None:
    """Keeps the log of a server in place of what was kept of it."""
    file = path()
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [line for line in _lines() if line.split()[:1] != [address]]
    root = base64.b64encode(known.root).decode()
    lines.append(f"{address} {known.key} {known.size} {root}")
    beside = file.with_name(f"known_logs.{os.getpid()}")
    beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    beside.replace(file)
