"""What was asked and acknowledged, and what was found to be wrong."""

import threading
import time
from collections import Counter
from pathlib import Path

#: Seconds after a disturbance in which a command may still fail of it.
AFTER = 20.0


class Account:
    """Kept by all threads."""

    def __init__(self, folder: Path):
        self._lock = threading.Lock()
        self._file = folder / "findings.txt"
        self._cut = folder / "cut.txt"
        self._disturbed = 0.0
        #: Commands that did what they were asked, and those that a disturbance ended, by kind.
        self.done: Counter[str] = Counter()
        self.cut: Counter[str] = Counter()
        #: SIGKILLs by whom they fell on, and all other disturbances.
        self.kills: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self.findings = 0
        #: What must be there for ever: why an edit was made, names of branches, checkpoints, the
        #: jobs of sweeps with the digests of their results.
        self.edits: list[str] = []
        self.branches: list[str] = []
        self.checkpoints: list[Path] = []
        self.sweeps: list[tuple[str, str]] = []

    def disturb(self, until: float = 0.0) -> None:
        """Something is done to a process, now or until a while from now."""
        with self._lock:
            self._disturbed = max(self._disturbed, time.monotonic() + until)

    def was_disturbed(self, since: float) -> bool:
        """Whether a command that began then may have failed of a disturbance."""
        return self._disturbed + AFTER > since

    def count(self, counter: Counter[str], what: str) -> None:
        with self._lock:
            counter[what] += 1

    def cut_off(self, kind: str, what: str) -> None:
        """A command was ended by a disturbance, with these words."""
        self.count(self.cut, kind)
        with self._lock, open(self._cut, "a") as out:
            out.write(f"{time.strftime('%H:%M:%S')} {what}\n")

    def keep(self, what: list, it) -> None:
        with self._lock:
            what.append(it)

    def found(self, what: str) -> None:
        """Something is wrong."""
        with self._lock:
            self.findings += 1
            line = f"{time.strftime('%H:%M:%S')} {what}\n"
            with open(self._file, "a") as out:
                out.write(line)
            print(f"FOUND {line}", end="", flush=True)

    @property
    def jobs(self) -> int:
        """Everything that was done, in one number."""
        return sum(self.done.values())
