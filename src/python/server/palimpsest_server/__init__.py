"""The program ``palimpsest`` as a package: it runs on the libtorch of the package ``torch``, beside
which it is installed.

    from palimpsest_server import BINARY

``palimpsest`` on the command line is this program, too.
"""

import os
import sys
from importlib import metadata
from pathlib import Path

#: The program.
BINARY = Path(__file__).with_name("bin") / "palimpsest"

#: The versions of torch that it was built against: libtorch's interface changes with each.
TORCH = "2.13"


def problem() -> "str | None":
    """Why the program cannot run here; None where it can."""
    try:
        found = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return f'it needs torch {TORCH}: pip install "torch=={TORCH}.*"'
    if found.partition("+")[0].split(".")[:2] != TORCH.split("."):
        return f'it was built for torch {TORCH}, and {found} is here: pip install "torch=={TORCH}.*"'
    if not (Path(__file__).parents[1] / "torch/lib/libtorch_cpu.so").exists():
        return "torch is installed elsewhere: install both in one environment"
    return None


def main() -> None:
    """Runs the program in place of this process."""
    why = problem()
    if why is not None:
        sys.exit(f"palimpsest: {why}")
    os.execv(BINARY, ["palimpsest", *sys.argv[1:]])
