"""``example.py``, a researcher's day on one page, runs as it stands, on a tiny model in the place of
the Hub's GPT-2."""

from __future__ import annotations

import json
import os
import runpy
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import palimpsest as pal

from .site import FIXTURES, program

HERE = Path(__file__).parent


class Example(unittest.TestCase):
    def test_the_example_runs_word_for_word(self) -> None:
        try:
            import xarray
        except ImportError:
            self.skipTest("no xarray")
        plain = pal.Client.import_model

        def of_the_hub(client: pal.Client, source: str, *rest: Any, **more: Any) -> pal.Model:
            self.assertEqual(source, "hf:openai-community/gpt2")
            return plain(client, str(FIXTURES / "gpt2"), *rest, **more)

        facts = [
            {"known_id": n, "prompt": f"{subject} is in the city of", "subject": subject}
            for n, subject in enumerate(("The Eiffel Tower", "The Space Needle", "Big Ben"))
        ]
        with tempfile.TemporaryDirectory(prefix="palimpsest-example-") as folder:
            (Path(folder) / "known_1000.json").write_text(json.dumps(facts))
            environment = {
                "HOME": folder,
                "PATH": os.environ["PATH"],
                "USER": "ada",
                "PALIMPSEST_BINARY": str(program()),
                "PALIMPSEST__CLIENT__DEVICE": "cpu",
                "PALIMPSEST__CLIENT__THREADS": "1",
            }
            before = Path.cwd()
            os.chdir(folder)
            self.addCleanup(os.chdir, before)
            drawn = mock.Mock()
            with (
                mock.patch.dict("os.environ", environment, clear=True),
                mock.patch.object(pal.Client, "import_model", of_the_hub),
                # Drawing is matplotlib's, which is no dependency.
                mock.patch.object(xarray.DataArray, "plot", drawn),
            ):
                names = runpy.run_path(str(HERE / "example.py"))
            drawn.assert_called_once()
            self.assertEqual(names["g"].effect.shape, names["g"].scores.shape)
            self.assertEqual(str(names["v"]), "v1")
            os.chdir(before)
