"""How a job goes, shown while one waits: in a notebook or a terminal, and nowhere else."""

from __future__ import annotations

import sys
import time
from typing import Any

from .values import Progress


def _is_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


class Bar:
    """One bar a job: tqdm's where it is installed, else a line a second."""

    def __init__(self, job: str, wanted: bool | None) -> None:
        self._job = job
        self._on = wanted if wanted is not None else _is_notebook() or sys.stderr.isatty()
        self._bar: Any = None
        self._told = 0.0

    def show(self, now: Progress) -> None:
        """Shows how the job stands."""
        if not self._on:
            return
        words = [now.state]
        words += [f"{now.failed} failed"] if now.failed else []
        words += [f"{now.cached} cached"] if now.cached else []
        words += [f"{now.rate:.0f}/s on {now.workers}"] if now.workers else []
        words += [now.step] if now.step else []
        if self._bar is None:
            try:
                from tqdm.auto import tqdm
            except ImportError:
                tqdm = None
            if tqdm is not None:
                self._bar = tqdm(total=now.units, desc=f"job {self._job[:8]}", unit="unit")
        if self._bar is not None:
            self._bar.total = now.units
            self._bar.n = now.done
            self._bar.set_postfix_str(", ".join(words))
        elif time.monotonic() - self._told >= 1.0:
            self._told = time.monotonic()
            said = f"job {self._job[:8]}: {now.done} of {now.units} units, {', '.join(words)}"
            print(said, file=sys.stderr)

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()
