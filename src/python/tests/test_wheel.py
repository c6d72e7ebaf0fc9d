"""The server's wheel, as pip installs it: packed around a small program in the place of the real one,
which takes a release build (deploy/wheel.sh makes and tries that)."""

from __future__ import annotations

import base64
import csv
import hashlib
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import unittest
import zipfile
from pathlib import Path

import palimpsest as pal

from .site import ROOT

PACK = ROOT / "src/python/server/pack.py"
SOURCE = '#include <stdio.h>\nint main(int n, char **of) { printf("%d %s\\n", n, of[n - 1]); }\n'


@unittest.skipUnless(shutil.which("cc") and shutil.which("readelf"), "no compiler here")
class ServerWheel(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="palimpsest-wheel-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def program(self, *flags: str) -> Path:
        made = self.folder / "program"
        (self.folder / "program.c").write_text(SOURCE)
        command = ["cc", "-o", str(made), str(self.folder / "program.c"), *flags]
        subprocess.run(command, check=True)
        return made

    def pack(self, program: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, PACK, program, pal.__version__, self.folder]
        return subprocess.run(command, capture_output=True, text=True)

    def test_a_program_that_would_not_run_there_is_not_packed(self) -> None:
        pack = runpy.run_path(str(PACK))
        rpath = f"-Wl,-rpath,{pack['RPATH']}"
        for flags, said in (
            ([], "it looks for torch by []"),
            # A RUNPATH, which comes after LD_LIBRARY_PATH.
            ([rpath, "-Wl,--enable-new-dtags"], "it looks for torch by [('RUNPATH'"),
            (["-Wl,-rpath,/nowhere,--disable-new-dtags"], "by [('RPATH', '/nowhere')]"),
            (
                [rpath, "-Wl,--disable-new-dtags,--no-as-needed", "-lresolv"],
                "it needs libresolv.so.2, which neither manylinux",
            ),
        ):
            done = self.pack(self.program(*flags))
            self.assertEqual(done.returncode, 1, flags)
            self.assertIn(said, done.stderr)
        self.assertEqual(list(self.folder.glob("*.whl")), [])
        pack["SYMBOLS"]["GLIBC"] = (2, 1)
        wrong = pack["problems"](self.program(rpath, "-Wl,--disable-new-dtags"))
        self.assertIn("it needs GLIBC_2.2.5, and manylinux_2_34_x86_64 has (2, 1)", wrong)

    def test_it_is_installed_and_starts_where_its_torch_is(self) -> None:
        rpath = runpy.run_path(str(PACK))["RPATH"]
        program = self.program(f"-Wl,-rpath,{rpath},--disable-new-dtags")
        done = self.pack(program)
        self.assertEqual(done.returncode, 0, done.stderr)
        wheel = Path(done.stdout.strip())
        first = wheel.read_bytes()
        self.pack(program)
        self.assertEqual(wheel.read_bytes(), first, "the same program, other bytes")
        with zipfile.ZipFile(wheel) as zipped:
            [record] = [it for it in zipped.namelist() if it.endswith("/RECORD")]
            listed = list(csv.reader(zipped.read(record).decode().splitlines()))
            self.assertEqual([it[0] for it in listed], zipped.namelist())
            for name, digest, size in listed[:-1]:
                data = zipped.read(name)
                of_it = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
                self.assertEqual((digest, size), (f"sha256={of_it.decode()}", str(len(data))))

        venv = self.folder / "venv"
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        pip = [venv / "bin/python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--no-index", "--no-deps", wheel], check=True)

        def says() -> str:
            command = [venv / "bin/palimpsest", "status", "--json"]
            done = subprocess.run(command, capture_output=True, text=True)
            return (done.stdout + done.stderr).strip()

        self.assertIn('it needs torch 2.13: pip install "torch==2.13.*"', says())
        site = Path(sysconfig.get_path("purelib", vars={"base": str(venv)}))
        info = site / "torch-2.12.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.12.1+cpu\n")
        self.assertIn("built for torch 2.13, and 2.12.1+cpu is here", says())
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0+cpu\n")
        self.assertIn("torch is installed elsewhere", says())
        (site / "torch/lib").mkdir(parents=True)
        (site / "torch/lib/libtorch_cpu.so").touch()
        self.assertEqual(says(), "3 --json")
