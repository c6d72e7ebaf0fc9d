"""A coordinator and a worker of this test run, with a tiny model."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FIXTURES = ROOT / "tests/fixtures"


def program() -> Path:
    """The program.

    Raises:
        SkipTest: it is not built.
    """
    given = os.environ.get("PALIMPSEST_BINARY")
    path = Path(given) if given else ROOT / "target/debug/palimpsest"
    if not path.exists():
        raise unittest.SkipTest(f"no {path}: cargo build")
    return path


def free_port() -> int:
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return int(it.getsockname()[1])


class Site:
    """A folder with a coordinator and what works for it."""

    def __init__(self) -> None:
        self.program = program()
        self.folder = Path(tempfile.mkdtemp(prefix="palimpsest-python-"))
        self.home = self.folder / "home"
        self.home.mkdir()
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.address}"
        self.processes: list[subprocess.Popen[bytes]] = []
        atexit.register(self.close)

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PALIMPSEST__")}
        one = {"PALIMPSEST__WORKER__THREADS": "1", "PALIMPSEST__WORKER__DEVICE": "cpu"}
        return {**kept, **one, "HOME": str(self.home), "USER": "ada"}

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with open(self.folder / f"{arguments[0].strip('-')}.log", "ab") as log:
            process = subprocess.Popen(
                [self.program, *arguments],
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [self.program, *arguments],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode != 0:
            raise AssertionError(f"{arguments}: {done.stderr}")
        return done.stdout

    def serve(self) -> subprocess.Popen[bytes]:
        process = self.start("serve", "--listen", self.address, "--store", "store")
        self.wait_for_port()
        return process

    def wait_for_port(self) -> None:
        for _ in range(600):
            with socket.socket() as it:
                if it.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError(f"nobody listens at {self.address}")

    def work(self) -> None:
        self.start("worker", "--coordinator", self.url)

    def close(self) -> None:
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        self.processes.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


_SITE: Site | None = None


def site() -> Site:
    """The site that the tests share: a coordinator, a worker, and the model ``llama``."""
    global _SITE
    if _SITE is None:
        _SITE = Site()
        _SITE.serve()
        _SITE.work()
        _SITE.run(
            "model", "import", str(FIXTURES / "llama"), "--name", "llama", "--server", _SITE.url
        )
        os.environ["XDG_CONFIG_HOME"] = str(_SITE.home / ".config")
    return _SITE
