"""A server of one's own: ``palimpsest local``, started, or joined where another notebook has it.

It is the program itself, not a copy of it in Python. Its standard input is held here: when this
process ends, however that is, the server sees the end of it, and leaves once nobody else is
connected.
"""

from __future__ import annotations

import importlib
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from .errors import NoServer
from .settings import Settings, socket_path

#: Seconds that a server may take until it listens: a store that was not closed is recovered first.
PATIENCE = 120.0
#: Seconds that one which was left may take to end, and bytes after which its log begins anew.
LEAVING = 10.0
LOG = 4 << 20


def find_program() -> str:
    """The program: ``PALIMPSEST_BINARY``, the one of the package ``palimpsest-lm-server``, or
    ``palimpsest`` in ``PATH``.

    Raises:
        NoServer: there is none, or the package's cannot run with the torch that is here.
    """
    named = os.environ.get("PALIMPSEST_BINARY")
    if named:
        if not os.access(named, os.X_OK):
            raise NoServer(f"PALIMPSEST_BINARY is {named!r}, which is no program")
        return named
    try:
        packaged = importlib.import_module("palimpsest_server")
    except ImportError:
        pass
    else:
        why = packaged.problem()
        if why is not None:
            raise NoServer(f"the program of palimpsest-lm-server cannot run here: {why}")
        return str(packaged.BINARY)
    found = shutil.which("palimpsest")
    if found is None:
        raise NoServer(
            "no server is named, and the program to start one is not here: "
            'pip install "palimpsest-lm[server]", put palimpsest in PATH, name it in '
            "PALIMPSEST_BINARY, or connect('http://HOST:PORT')"
        )
    return found


#: Servers that were left to others who have joined them: waited for when they end.
_LEFT: list[subprocess.Popen[bytes]] = []


class Own:
    """A server that was started here, or joined."""

    def __init__(
        self, address: str, store: Path, process: subprocess.Popen[bytes] | None = None
    ) -> None:
        self.address = address
        self.store = store
        self._process = process

    @property
    def pid(self) -> int | None:
        """Its process, where it was started here."""
        return None if self._process is None else self._process.pid

    def leave(self) -> None:
        """Lets it go: it ends, unless others have joined it."""
        process, self._process = self._process, None
        _LEFT[:] = [it for it in _LEFT if it.poll() is None]
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        if process.stdout is not None:
            process.stdout.close()
        until = time.monotonic() + LEAVING
        while process.poll() is None:
            # Others may have joined: then it stays for them.
            stays = time.monotonic() > until - LEAVING + 1 and joined(self.store) is not None
            if stays or time.monotonic() > until:
                _LEFT.append(process)
                return
            time.sleep(0.02)


def joined(store: Path) -> str | None:
    """The address of the server that has a store; None where none answers."""
    try:
        address = (store / "local.address").read_text(encoding="utf-8").strip()
        path = socket_path(address)
        if path is None or os.stat(path).st_uid != os.geteuid():
            return None
        with socket.socket(socket.AF_UNIX) as it:
            it.settimeout(5)
            it.connect(path)
        return address
    except OSError:
        return None


def join_or_start(settings: Settings) -> Own:
    """The server of the settings' store: the one that has it, or a new one.

    Raises:
        NoServer: the program is not here, or it cannot serve; the message has its words.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise NoServer("servers of one's own need Unix sockets: connect('http://HOST:PORT')")
    store = settings.store
    if store is None:
        raise NoServer("HOME is not set: give store, the folder of everything that is kept")
    until = time.monotonic() + PATIENCE
    while True:
        address = joined(store)
        if address is not None:
            _say(f"joined the server of {store}")
            return Own(address, store)
        process, said = _start(settings, store, until)
        if process is not None:
            _say(f"a server of your own at {said}; its store is {store}")
            return Own(said, store, process)
        # Another notebook may have been faster, or one may be about to leave.
        if "another process" not in said or time.monotonic() > until:
            raise NoServer(f"'palimpsest local' cannot serve {store}: {said}")
        time.sleep(0.2)


def _start(
    settings: Settings, store: Path, until: float
) -> tuple[subprocess.Popen[bytes] | None, str]:
    """The process and its address; or none, and what it said."""
    program = find_program()
    store.mkdir(parents=True, exist_ok=True)
    log = store / "local.log"
    if log.exists() and log.stat().st_size > LOG:
        log.unlink()
    command = [program, "local", "--store", str(store), "--until-stdin-closes"]
    if settings.config is not None:
        command[1:1] = ["--config", str(settings.config)]
    with open(log, "ab") as errors:
        before = errors.tell()
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                # Ctrl-C in a terminal is for the program that asks, not for its server.
                start_new_session=True,
            )
        except OSError as error:
            raise NoServer(f"{program} cannot be started: {error.strerror}") from error
    assert process.stdout is not None and process.stdin is not None
    out = process.stdout.fileno()
    line = b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([out], [], [], max(until - time.monotonic(), 0.0))
        piece = os.read(out, 4096) if ready else b""
        if not piece:
            break
        line += piece
    if line.endswith(b"\n"):
        # A child that is forked later may outlive this process: it holds no server.
        os.register_at_fork(after_in_child=process.stdin.close)
        return process, line.decode().strip()
    process.stdin.close()
    process.stdout.close()
    process.kill()
    status = process.wait()
    with open(log, "rb") as errors:
        errors.seek(before)
        said = errors.read().decode(errors="replace").strip()
    # What it logged before it failed is of no use here.
    lines = said.splitlines()[-5:]
    return None, "\n".join(lines) or f"it ended with {status}"


def _say(text: str) -> None:
    print(f"palimpsest: {text}", file=sys.stderr)
