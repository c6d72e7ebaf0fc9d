"""The notebooks run, on a tiny model and a server of their own, and are committed without what came
out of them."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import Any

from .site import FIXTURES, ROOT, program

NOTEBOOKS = ROOT / "src/python/notebooks"
PYTHON = Path(os.environ.get("PALIMPSEST_NOTEBOOK_PYTHON", ROOT / ".deps/notebook/bin/python"))


class Notebooks(unittest.TestCase):
    def test_they_are_committed_without_outputs(self) -> None:
        found = sorted(NOTEBOOKS.glob("*.ipynb"))
        self.assertEqual(len(found), 4)
        for file in found:
            whole = json.loads(file.read_text())
            for cell in whole["cells"]:
                self.assertEqual(cell.get("outputs", []), [], file.name)
                self.assertIsNone(cell.get("execution_count"), file.name)
            self.assertLess(file.stat().st_size, 20_000, file.name)

    def run_one(self, name: str) -> dict[str, Any]:
        if not PYTHON.exists():
            self.skipTest(f"no Jupyter ({PYTHON}): deploy/setup.sh installs it where it can")
        with tempfile.TemporaryDirectory(prefix="palimpsest-nb-") as folder:
            environment = {
                "HOME": folder,
                "PATH": os.environ["PATH"],
                "USER": "ada",
                "PYTHONPATH": str(ROOT / "src/python"),
                "PALIMPSEST_BINARY": str(program()),
                "PALIMPSEST_NOTEBOOK_MODEL": str(FIXTURES / "llama"),
                "PALIMPSEST_NOTEBOOK_TOKENS": "4000",
                "PALIMPSEST__CLIENT__THREADS": "1",
                "PALIMPSEST__CLIENT__DEVICE": "cpu",
            }
            runner = Path(__file__).with_name("run_notebook.py")
            done = subprocess.run(
                [PYTHON, runner, NOTEBOOKS / f"{name}.ipynb"],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=600,
            )
            self.assertEqual(done.returncode, 0, done.stderr[-4000:])
            told: dict[str, Any] = json.loads(done.stdout)
            self.assertNotIn("<script", told["html"])
            return told

    def test_a_first_trace(self) -> None:
        told = self.run_one("first_trace")
        self.assertEqual(told["html"].count("<svg"), 3)
        self.assertIn("3 of 3 units were known", told["text"])

    def test_the_papers_figures(self) -> None:
        told = self.run_one("papers_figures")
        self.assertGreaterEqual(told["html"].count("<svg"), 5)
        self.assertIn("files in arrays/", told["text"])

    def test_many_edits(self) -> None:
        told = self.run_one("many_edits")
        self.assertIn("3 facts, 3 keys", told["text"])
        self.assertIn("before <ES", told["text"])

    def test_an_audit(self) -> None:
        told = self.run_one("an_audit")
        self.assertIn("goes on from", told["text"])
        self.assertIn("is not in the log", told["text"])
