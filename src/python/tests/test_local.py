"""Servers of one's own: started where there is none, joined, and gone with who started them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import palimpsest as pal
from palimpsest import local

from .site import FIXTURES, ROOT, Site, program

PROMPT, SUBJECT = "The Castle of Aster stands in the city of", "Castle of Aster"

#: A notebook: it connects, says which process serves, asks for long work, and waits.
KERNEL = """
import sys, time
import palimpsest as pal
p = pal.connect()
print(p._own.pid, p.settings.server, flush=True)
if "work" in sys.argv:
    fact = {"prompt": "The Castle of Aster stands in the city of", "subject": "Castle of Aster"}
    facts = [dict(fact, id=str(n)) for n in range(500)]
    p.model("llama").trace(facts, samples=50, noise=0.5, wait=False)
    print("asked", flush=True)
sys.stdin.read()
p.close()
"""


def is_there(pid: int) -> bool:
    """Whether a process runs (one that ended and was not waited for does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def wait_until(what: str, ready: Callable[[], bool], seconds: float = 30.0) -> None:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if ready():
            return
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s for {what}")


class Local(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="palimpsest-own-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.program = str(program())
        self.environment = {
            "HOME": str(self.folder),
            "PATH": os.environ["PATH"],
            "USER": "ada",
            "PALIMPSEST_BINARY": self.program,
            "PALIMPSEST__CLIENT__THREADS": "1",
            "PALIMPSEST__CLIENT__DEVICE": "cpu",
        }
        patched = mock.patch.dict("os.environ", self.environment, clear=True)
        patched.start()
        self.addCleanup(patched.stop)

    def kernel(self, *arguments: str) -> tuple[subprocess.Popen[str], list[str]]:
        process = subprocess.Popen(
            [sys.executable, "-c", KERNEL, *arguments],
            cwd=self.folder,
            env={**self.environment, "PYTHONPATH": str(ROOT / "src/python")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

        def end() -> None:
            process.kill()
            process.communicate()

        self.addCleanup(end)
        assert process.stdout is not None
        return process, process.stdout.readline().split()

    def test_without_a_server_one_is_started_and_goes_with_the_last(self) -> None:
        with pal.connect() as p:
            assert p._own is not None and p._own.pid is not None
            pid = p._own.pid
            self.assertTrue((p.settings.server or "").startswith("unix:"))
            model = p.import_model(str(FIXTURES / "llama"), "llama")
            grid = model.trace(PROMPT, subject=SUBJECT, samples=2, noise=0.5).grid()
            self.assertEqual(grid.effect.shape, (len(grid.tokens), 3))
            # A second notebook joins.
            second, said = self.kernel()
            self.assertEqual(said, ["None", p.settings.server])
            # And in one notebook a second connection does.
            again = pal.connect()
            self.assertEqual(len(again.jobs()), 1)
            again.close()
            # So does the command line.
            listed = subprocess.run(
                [self.program, "job", "list", "--json"], capture_output=True, text=True
            )
            self.assertIn(p.jobs()[0].id, listed.stdout)
        self.assertTrue(is_there(pid), "the second notebook has lost its server")
        second.kill()
        wait_until("the server's end", lambda: not is_there(pid))
        # What was done is there.
        with pal.connect() as p:
            self.assertEqual([job.kind for job in p.jobs()], ["trace"])
        self.assertIn("serving", (self.folder / ".local/share/palimpsest/local.log").read_text())

    def test_a_notebook_that_is_killed_leaves_no_process(self) -> None:
        with pal.connect() as p:
            p.import_model(str(FIXTURES / "llama"), "llama")
        kernel, said = self.kernel("work")
        pid = int(said[0])
        assert kernel.stdout is not None
        self.assertEqual(kernel.stdout.readline(), "asked\n")
        self.assertTrue(is_there(pid))
        kernel.send_signal(signal.SIGKILL)
        kernel.wait()
        wait_until("the server's end", lambda: not is_there(pid), 20)
        # Ctrl-C is for the notebook, not for its server.
        with pal.connect() as p:
            assert p._own is not None and p._own.pid is not None
            self.assertNotEqual(os.getsid(p._own.pid), os.getsid(0))
            [job] = p.jobs()
            self.assertNotIn(job.state, ("failed", "cancelled"))
            p.job(job.id).cancel()

    def test_a_child_that_is_forked_holds_no_server(self) -> None:
        with pal.connect() as p:
            assert p._own is not None and p._own._process is not None
            held = p._own._process.stdin
            assert held is not None
            child = os.fork()
            if child == 0:
                os._exit(0 if held.closed else 1)
            self.assertEqual(os.waitpid(child, 0)[1], 0)
            self.assertFalse(held.closed)

    def test_a_store_of_its_own_has_a_server_of_its_own(self) -> None:
        async def act() -> None:
            async with pal.aconnect(store=self.folder / "one") as p:
                other = pal.aconnect(store=str(self.folder / "two"))
                async with other as q:
                    self.assertNotEqual(p.settings.server, q.settings.server)
                    self.assertEqual(await p.whoami(), "ada")
                    self.assertEqual(await q.jobs(), [])
                with self.assertRaisesRegex(pal.NoServer, "no server is named"):
                    await other.status()

        asyncio.run(act())

    def test_without_the_program_it_is_said_how_to_get_it(self) -> None:
        del os.environ["PALIMPSEST_BINARY"]
        os.environ["PATH"] = str(self.folder)
        with mock.patch.dict("sys.modules", {"palimpsest_server": None}):
            with self.assertRaisesRegex(pal.NoServer, r"palimpsest-lm\[server\]"):
                pal.connect()
        # The package's program is not started where its torch is missing: the loader would only name
        # a library.
        packaged = mock.Mock(problem=lambda: "it needs torch 2.13")
        with mock.patch.dict("sys.modules", {"palimpsest_server": packaged}):
            with self.assertRaisesRegex(pal.NoServer, "cannot run here: it needs torch 2.13"):
                pal.connect()
            packaged.problem, packaged.BINARY = lambda: None, Path("/of/the/package")
            self.assertEqual(local.find_program(), "/of/the/package")
        os.environ["PALIMPSEST_BINARY"] = "/no/such"
        with self.assertRaisesRegex(pal.NoServer, "which is no program"):
            pal.connect()
        # What the program says of why it cannot serve is passed on.
        os.environ["PALIMPSEST_BINARY"] = self.program
        (self.folder / "store").mkdir()
        (self.folder / "store/FORMAT").write_text("999\n")
        with self.assertRaisesRegex(pal.NoServer, "format"):
            pal.connect(store=self.folder / "store")

    def test_a_socket_that_nobody_has_and_one_with_spaces(self) -> None:
        self.assertIsNone(local.joined(self.folder))
        with self.assertRaisesRegex(pal.NoServer, "no coordinator answers at unix:"):
            pal.connect(f"unix:{self.folder}/nobody", patience=0.1)
        with self.assertRaisesRegex(pal.NoServer, "1 to 107 bytes"):
            pal.connect("unix:/" + "x" * 107)
        own = Site()
        self.addCleanup(own.close)
        socket = self.folder / "a socket %20"
        own.start("serve", "--listen", f"unix:{socket}", "--store", "store")
        wait_until("the socket", socket.exists)
        with pal.connect(f"unix:{socket}", user="eve") as p:
            self.assertEqual(p.whoami(), "eve")
