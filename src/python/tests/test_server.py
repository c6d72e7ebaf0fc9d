"""Against a coordinator and a worker: what a researcher does in a day."""

from __future__ import annotations

import asyncio
import importlib.util
import signal
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import palimpsest as pal
from palimpsest._sync.job import Job
from palimpsest._sync.transport import Transport

from .site import FIXTURES, Site, free_port, program, site

PROMPT, SUBJECT = "The Castle of Aster stands in the city of", "Castle of Aster"
#: An extra, like xarray: what needs none is tried without it, too.
PANDAS = importlib.util.find_spec("pandas") is not None
SETTINGS: dict[str, Any] = {"noise": 0.5, "samples": 4, "window": 3}
FACTS = [
    {"id": "aster", "prompt": PROMPT, "subject": SUBJECT, "relation": "P131"},
    {
        "id": "brume",
        "prompt": "The Tower of Brume lies in the town of",
        "subject": "Tower of Brume",
    },
    {"id": "wrong", "prompt": PROMPT, "subject": SUBJECT, "attribute": "Nowhere"},
]


class WithServer(unittest.TestCase):
    site: Site
    client: pal.Client
    model: pal.Model

    @classmethod
    def setUpClass(cls) -> None:
        cls.site = site()
        console = "https://lab.example:7464/"
        cls.client = pal.connect(cls.site.url, user="ada", console=console)
        cls.addClassCleanup(cls.client.close)
        cls.model = cls.client.model("llama")

    def cli(self, *arguments: str) -> str:
        return self.site.run(*arguments, "--server", self.site.url)


class Traces(WithServer):
    def test_a_trace_gives_the_grids_that_transformers_gives(self) -> None:
        import json

        kinds = ["hidden", "mlp", "attn", "hidden_severed_mlp"]
        sweep = self.model.trace(PROMPT, subject=SUBJECT, kinds=kinds, **SETTINGS)
        self.assertEqual(sweep.url, f"https://lab.example:7464/{sweep.name}")
        expected = json.loads((FIXTURES / "llama/causal.json").read_text())
        theirs = expected["scores"]
        for kind, name in zip(kinds, ["hidden", "mlp", "attn", "hidden_mlp_severed"]):
            grid = sweep.grid(kind=kind)
            self.assertEqual(list(grid.token_ids), expected["token_ids"])
            self.assertEqual([grid.subject.start, grid.subject.stop], expected["subject_span"])
            np.testing.assert_allclose(grid.scores, theirs[name], atol=1e-5)
            np.testing.assert_array_equal(grid.effect, grid.scores - grid.corrupted)
            peak = grid.peak
            assert peak is not None
            self.assertEqual(peak.effect, grid.effect.max())
        shown = sweep._repr_mimebundle_()["text/html"]
        self.assertEqual(shown.count("<svg"), 4)
        self.assertNotIn("<script", shown)
        with self.assertRaisesRegex(LookupError, "hidden_severed_attn was not traced"):
            sweep.grid(kind="hidden_severed_attn")

    def test_figures_and_averages_are_those_of_the_command_line(self) -> None:
        one = self.model.trace(PROMPT, subject=SUBJECT, **SETTINGS)
        self.cli("job", "results", one.id, "--svg", "one")
        for kind in ("hidden", "mlp", "attn"):
            [file] = (self.site.folder / "one").glob(f"*_{kind}.svg")
            self.assertEqual(file.read_text(), one.grid(kind=kind).svg(), kind)
        several = self.model.trace(FACTS, **SETTINGS)
        self.cli("job", "results", several.id, "--averages", "--svg", "several")
        for made in several.averages():
            folder = self.site.folder / "several"
            file = folder / f"averages_{made.kind}.svg"
            self.assertEqual(file.read_text(), made.map(), made.kind)
            file = folder / f"averages_{made.kind}_curves.svg"
            self.assertEqual(file.read_text(), made.plot(), made.kind)
        located = several.locate()
        self.assertEqual(located.role, "last subject")
        relations = several.averages(by="relation")
        self.assertEqual(relations.of("mlp", "P131").total_effect.rows, 1)
        if "JobService/GetSweepSummary" in pal.wire.METHODS:
            self.compare_summary(several)
            # Of some kinds, and over the facts of one relation.
            [one] = several.summary(kinds=["mlp"], relation="P131").averages
            self.assertEqual((one.kind, one.clean), ("mlp", relations.of("mlp", "P131").clean))
            [one] = several.summary(kinds=["attn"], relation="").averages
            self.assertEqual((one.kind, one.clean), ("attn", relations.of("attn").clean))

    def compare_summary(self, sweep: pal.Sweep) -> None:
        try:
            told = sweep.summary()
        except pal.Error as error:
            if error.code == "UNIMPLEMENTED":
                self.skipTest("the program is older than the package")
            raise
        for theirs, ours in zip(told.averages, sweep.averages(), strict=True):
            self.assertEqual((theirs.kind, theirs.wrong), (ours.kind, ours.wrong))
            self.assertEqual((theirs.metric, theirs.direction), (ours.metric, ours.direction))
            self.assertEqual(theirs.without_share, ours.without_share)
            np.testing.assert_array_equal(theirs.share, ours.share)
            self.assertEqual(theirs.total_effect, ours.total_effect)
            np.testing.assert_array_equal(theirs.effect, ours.effect)
            np.testing.assert_array_equal(theirs.half_width, ours.half_width)

    def test_results_can_be_had_in_part(self) -> None:
        sweep = self.model.trace(FACTS, kinds=["mlp", "attn"], **SETTINGS)
        self.assertEqual([g.unit for g in sweep.grids(kind="attn")], [1, 3, 5])
        self.assertEqual([g.unit for g in sweep.grids(correct=False)], [4, 5])
        self.assertEqual([g.unit for g in sweep.grids(relation="P131")], [0, 1])
        whole = sweep.grids(kind="mlp")
        peaks = sweep.peaks(kind="mlp")
        self.assertEqual([g.peak for g in peaks], [g.peak for g in whole])
        self.assertEqual(sweep.failures(), [])
        self.assertEqual(sum(task.units for task in sweep.tasks(["done"])), 6)
        again = self.client.job(sweep.id)
        self.assertIsInstance(again, pal.Sweep)
        self.assertEqual(len(again.grids()), 6)
        listed = self.client.jobs(kind="trace", state="succeeded", model="llama", owner="ada")
        self.assertIn(sweep.id, [job.id for job in listed])
        self.assertEqual(self.client.jobs(kind="eval", text="no such"), [])

    def test_frames_have_what_grids_have(self) -> None:
        try:
            import pandas
            import xarray  # noqa: F401
        except ImportError:
            self.skipTest("no pandas, or no xarray")
        sweep = self.model.trace(FACTS, kinds=["mlp", "attn"], **SETTINGS)
        frame = sweep.to_pandas()
        self.assertEqual(list(frame.query("correct and kind == 'mlp'").unit), [0, 2])
        grid = sweep.grid(0, "attn")
        long = sweep.to_pandas(long=True)
        cell = long[(long.unit == 1) & (long.token == 3) & (long.layer == 2)]
        self.assertEqual(cell.effect.item(), grid.effect[3, 2])
        data = sweep.to_xarray()
        self.assertEqual(dict(data.sizes), {"fact": 3, "kind": 2, "role": 6, "layer": 3})
        last = data.effect.sel(fact=0, kind="attn", role="last")
        np.testing.assert_array_equal(last, grid.effect[-1])
        again = self.model.trace(pandas.DataFrame(FACTS), kinds=["mlp", "attn"], **SETTINGS)
        self.assertEqual(again.counts.cached, 6)
        padded = sweep.to_xarray(align="pad")
        np.testing.assert_array_equal(
            padded.effect.sel(fact=0, kind="attn")[: len(grid.tokens)], grid.effect
        )

    def test_numpy_files_are_those_of_the_command_line(self) -> None:
        sweep = self.model.trace(FACTS, kinds=["hidden", "mlp"], **SETTINGS)
        self.cli("job", "results", sweep.id, "--npz", "npz")
        with tempfile.TemporaryDirectory() as folder:
            made = sweep.to_npz(Path(folder) / "new")
            theirs = sorted((self.site.folder / "npz").glob("*.npz"))
            self.assertEqual([it.name for it in made], [it.name for it in theirs])
            for ours, other in zip(made, theirs, strict=True):
                with np.load(ours) as a, np.load(other) as b:
                    self.assertEqual(list(a), list(b))
                    for name in a:
                        self.assertEqual(a[name].dtype, b[name].dtype, name)
                        np.testing.assert_array_equal(a[name], b[name], name)

    def test_another_prompt_corrupts_and_every_metric_is_the_command_lines(self) -> None:
        import json

        said = json.loads((FIXTURES / "llama/patching.json").read_text())
        metrics = ["probability", "logit_difference", "kl", "rank"]
        for direction in ("denoising", "noising"):
            sweep = self.model.trace(
                said["prompt"],
                subject=said["subject"],
                corrupted=said["corrupted"],
                kinds=["hidden", "mlp"],
                metrics=metrics,
                direction=direction,
                window=3,
            )
            self.assertEqual(sweep.metrics, tuple(metrics))
            grid = sweep.grid(kind="hidden")
            self.assertEqual(grid.corrupted_prompt, said["corrupted"])
            self.assertEqual(len(grid.corrupted_tokens), len(grid.tokens))
            self.assertEqual((grid.direction, grid.metrics), (direction, tuple(metrics)))
            self.assertIsNotNone(grid.foil)
            self.assertEqual([it.peak for it in sweep.peaks("hidden")], [grid.peak])
            with self.assertRaisesRegex(LookupError, "log_probability was not traced"):
                grid.in_metric("log_probability")
            place = f"patched-{direction}"
            self.cli("job", "results", sweep.id, "--averages", "--svg", place, "--npz", place)
            folder = self.site.folder / place
            for made in sweep.averages():
                suffix = "" if made.metric == "probability" else f"_{made.metric}"
                file = folder / f"averages_{made.kind}{suffix}.svg"
                self.assertEqual(file.read_text(), made.map(), (made.kind, made.metric))
            self.compare_summary(sweep)
            kl = sweep.grid(kind="mlp", metric="kl")
            self.assertEqual(sweep.averages().of("mlp", metric="kl").metric, "kl")
            self.assertGreater(kl.total_effect, 0)
            peak = kl.peak
            assert peak is not None
            self.assertEqual(peak.effect, kl.effect.max())
            with tempfile.TemporaryDirectory() as made_in:
                for ours in sweep.to_npz(made_in):
                    with np.load(ours) as a, np.load(folder / ours.name) as b:
                        self.assertEqual(list(a), list(b))
                        for name in a:
                            np.testing.assert_array_equal(a[name], b[name], name)
            self.cli("job", "results", sweep.id, "--svg", f"{place}-maps")
            for metric in metrics:
                suffix = "" if metric == "probability" else f"_{metric}"
                found = (self.site.folder / f"{place}-maps").glob(f"*_mlp{suffix}.svg")
                [drawn] = [it.read_text() for it in found]
                self.assertEqual(drawn, sweep.grid(kind="mlp", metric=metric).svg(), metric)

    def test_heads_are_arrays_and_figures_of_their_own(self) -> None:
        import json

        said = json.loads((FIXTURES / "llama/patching.json").read_text())
        sweep = self.model.trace(
            said["prompt"],
            subject=said["subject"],
            corrupted=said["corrupted"],
            kinds=["head", "head_all"],
            metrics=["probability", "logit_difference"],
        )
        for kind in ("head", "head_all"):
            for metric in sweep.metrics:
                grid = sweep.grid(kind=kind, metric=metric)
                theirs = np.array(said["denoising"][kind][metric])
                self.assertEqual(grid.scores.shape, theirs.shape)
                np.testing.assert_allclose(grid.scores, theirs, rtol=1e-4, atol=5e-5)
                peak = grid.peak
                assert peak is not None
                self.assertEqual(peak.effect, grid.effect.max())
            [short] = sweep.peaks(kind)
            self.assertEqual(short.peak, sweep.grid(kind=kind).peak)
        parts = ("head_q", "head_k", "head_v_all", "head_pattern")
        of_parts = self.model.trace(
            said["prompt"],
            subject=said["subject"],
            corrupted=said["corrupted"],
            kinds=parts,
            metrics=["logit_difference"],
        )
        self.compare_summary(of_parts)
        self.cli("job", "results", of_parts.id, "--svg", "parts")
        for kind in parts:
            grid = of_parts.grid(kind=kind, metric="logit_difference")
            theirs = np.array(said["denoising"][kind]["logit_difference"])
            self.assertEqual(grid.scores.shape, theirs.shape)
            np.testing.assert_allclose(grid.scores, theirs, rtol=1e-4, atol=5e-5)
            peak = grid.peak
            assert peak is not None
            page = "" if kind.endswith("_all") else f"_t{peak.at:02}"
            name = f"001_*_{kind}{page}_logit_difference.svg"
            [file] = (self.site.folder / "parts").glob(name)
            self.assertEqual(file.read_text(), grid.svg(), kind)
        head, over_all = sweep.grid(kind="head"), sweep.grid(kind="head_all")
        self.assertEqual((head.heads, over_all.scores.shape), (4, (4, 3)))
        assert over_all.peak is not None
        self.assertEqual(over_all.peak.role, "every")
        self.assertIn("every token, layer", str(over_all))
        self.compare_summary(sweep)
        self.cli("job", "results", sweep.id, "--averages", "--svg", "heads", "--npz", "heads")
        self.cli("job", "results", sweep.id, "--svg", "heads")
        folder = self.site.folder / "heads"
        for n in range(len(head.tokens)):
            [file] = folder.glob(f"0*_head_t{n:02}.svg")
            self.assertEqual(file.read_text(), head.svg(token=n), n)
            [file] = folder.glob(f"0*_head_t{n:02}_logit_difference.svg")
            shown = sweep.grid(kind="head", metric="logit_difference").svg(token=n)
            self.assertEqual(file.read_text(), shown, n)
        [file] = folder.glob("0*_head_all.svg")
        self.assertEqual(file.read_text(), over_all.svg())
        of_heads = sweep.averages().of("head")
        for role in of_heads.roles:
            name = f"averages_head_{role.replace(' ', '_')}_token*.svg"
            for file in folder.glob(name):
                if "logit" not in file.name:
                    self.assertEqual(file.read_text(), of_heads.map(role), role)
        file = folder / "averages_head_all.svg"
        self.assertEqual(file.read_text(), sweep.averages().of("head_all").map())
        with self.assertRaisesRegex(ValueError, "use map"):
            of_heads.plot()
        with self.assertRaisesRegex(ValueError, "none of the prompt's"):
            head.svg(token=99)
        with tempfile.TemporaryDirectory() as made_in:
            for ours in sweep.to_npz(made_in):
                with np.load(ours) as a, np.load(folder / ours.name) as b:
                    for name in a:
                        np.testing.assert_array_equal(a[name], b[name], name)
        long = sweep.to_pandas(long=True)
        cell = long[(long.kind == "head") & (long.token == 3) & (long["head"] == 2)]
        self.assertEqual(list(cell.effect), list(head.effect[3, 2]))
        with self.assertRaisesRegex(ValueError, "have heads too"):
            sweep.to_xarray()

    def test_paths_lead_into_the_receivers_alone(self) -> None:
        import json

        said = json.loads((FIXTURES / "llama/patching.json").read_text())
        expected = json.loads((FIXTURES / "llama/paths.json").read_text())
        asked: dict[str, Any] = dict(
            subject=said["subject"],
            corrupted=said["corrupted"],
            kinds=["head", "head_all"],
            metrics=["probability", "logit_difference"],
        )
        for frozen, mlps in ((False, "recomputed"), (True, "frozen")):
            sweep = self.model.trace(
                said["prompt"], receivers=expected["receivers"], frozen_mlps=frozen, **asked
            )
            for kind in ("head", "head_all"):
                grid = sweep.grid(kind=kind, metric="logit_difference")
                theirs = np.array(expected["denoising"][mlps][kind])
                np.testing.assert_allclose(grid.scores, theirs, rtol=1e-4, atol=5e-5)
                self.assertEqual(grid.paths, pal.Paths(tuple(expected["receivers"]), frozen))
                self.assertIn("directly into 2.0.q" if frozen else "into 2.0.q", str(grid))
            self.compare_summary(sweep)
            place = f"paths-{mlps}"
            self.cli("job", "results", sweep.id, "--averages", "--svg", place)
            self.cli("job", "results", sweep.id, "--svg", place, "--npz", place)
            folder = self.site.folder / place
            [file] = folder.glob("0*_head_all.svg")
            self.assertEqual(file.read_text(), sweep.grid(kind="head_all").svg())
            drawn = (folder / "averages_head_all.svg").read_text()
            self.assertEqual(drawn, sweep.averages().of("head_all").map())
            with tempfile.TemporaryDirectory() as made_in:
                for ours in sweep.to_npz(made_in):
                    with np.load(ours) as a, np.load(folder / ours.name) as b:
                        self.assertEqual(list(a["receivers"]), list(b["receivers"]))
            self.assertIn("heads ", self.cli("job", "show", sweep.id))
        with self.assertRaisesRegex(ValueError, "LAYER.HEAD.q"):
            self.model.trace(said["prompt"], receivers=["2.0"], **asked)
        with self.assertRaisesRegex(pal.InvalidArgument, "paths begin at heads"):
            self.model.trace(said["prompt"], receivers=["2.0.q"], **{**asked, "kinds": ["mlp"]})
        with self.assertRaisesRegex(pal.InvalidArgument, "name at least one"):
            self.model.trace(said["prompt"], frozen_mlps=True, **asked)
        with self.assertRaisesRegex(pal.JobFailed, "the model has 3 layers"):
            self.model.trace(said["prompt"], receivers=["7.0.q"], **asked)

    def test_estimates_are_said_to_be_some_and_verified_as_on_the_command_line(self) -> None:
        import json

        said = json.loads((FIXTURES / "llama/patching.json").read_text())
        sweep = self.model.trace(
            said["prompt"],
            subject=said["subject"],
            corrupted=said["corrupted"],
            kinds=["hidden", "mlp"],
            metrics=["logit_difference"],
            window=1,
            engine="attribution",
            integrated=4,
            verify=3,
        )
        grid = sweep.grid(kind="mlp", metric="logit_difference")
        self.assertEqual(grid.estimate, "first-order estimate, gradients of 4 steps")
        self.assertEqual([it.random for it in grid.verified], [False] * 3 + [True] * 3)
        exact = self.model.trace(
            said["prompt"],
            subject=said["subject"],
            corrupted=said["corrupted"],
            kinds=["mlp"],
            metrics=["logit_difference"],
            window=1,
        ).grid(metric="logit_difference")
        for cell in grid.verified:
            near = exact.scores[cell.at, cell.layer]
            self.assertAlmostEqual(cell.exact[0], near, delta=1e-4)
        [line] = [
            json.loads(line)
            for line in self.cli("job", "results", sweep.id, "--json").splitlines()
            if json.loads(line)["kind"] == "mlp"
        ]
        self.assertEqual(line["estimate"], grid.estimate)
        found, ours = line["attribution"]["verification"]["logit_difference"], grid.verification
        assert ours is not None and ours.missed is not None
        self.assertAlmostEqual(found["rank_correlation"], ours.rank_correlation or 0)
        self.assertAlmostEqual(found["largest_miss"]["estimate"], ours.largest_miss.estimate)
        self.assertAlmostEqual(found["missed"]["part"], ours.missed.part)
        place = "estimates"
        self.cli("job", "results", sweep.id, "--svg", place, "--npz", place)
        folder = self.site.folder / place
        [drawn] = [it.read_text() for it in folder.glob("*_mlp_logit_difference.svg")]
        self.assertEqual(drawn, grid.svg())
        with tempfile.TemporaryDirectory() as made_in:
            for made in sweep.to_npz(made_in):
                with np.load(made) as a, np.load(folder / made.name) as b:
                    self.assertEqual(list(a), list(b))
                    for name in a:
                        np.testing.assert_array_equal(a[name], b[name], name)
        with self.assertRaisesRegex(pal.InvalidArgument, "leave it out"):
            self.model.trace(said["prompt"], subject=said["subject"], verify=3)

    def test_facts_without_a_partner_say_why_they_were_not_traced(self) -> None:
        sweep = self.model.trace(FACTS[:1], kinds=["mlp"], corrupt="counterfactual")
        [grid] = sweep.grids()
        self.assertTrue(grid.correct and not grid.traced)
        self.assertTrue(grid.untraced)
        [made] = sweep.averages()
        self.assertEqual(made.wrong, 1)
        with self.assertRaises(pal.InvalidArgument):
            self.model.trace(FACTS[:1], corrupt="pairs")
        with self.assertRaises(pal.InvalidArgument):
            self.model.trace(FACTS[:1], corrupt="counterfactual", noise=0.5)

    def test_many_facts_travel_as_an_object(self) -> None:
        fact = pal.Fact(PROMPT, SUBJECT, attribute="Nowhere")
        padded = [
            pal.Fact(PROMPT, SUBJECT, attribute=f"Nowhere {n} {'x' * 2000}") for n in range(600)
        ]
        sweep = self.model.trace([fact, *padded], kinds=["mlp"], **SETTINGS)
        self.assertEqual(len(sweep.spec.facts), 0)
        self.assertEqual(sweep.spec.fact_count, 601)
        self.assertEqual(sweep.counts.done, 601)


class Edits(WithServer):
    def edit(self, **more: Any) -> pal.Draft:
        return self.model.edit(
            "{} is in",
            subject="The Eiffel Tower",
            target="Rome",
            true="Paris",
            paraphrases=["Where is the Eiffel Tower? In"],
            neighbours=["The Louvre is in"],
            layer=1,
            **more,
        )

    def test_an_edit_is_looked_at_committed_and_taken_back(self) -> None:
        # Whatever becomes of this test, the others find the model as it was.
        self.addCleanup(lambda: self.model.ref("main").move("v0"))
        draft = self.edit(collect=True)
        self.assertTrue(draft.accepted, draft.gates)
        kinds = [probe.kind for probe in draft.probes]
        self.assertEqual(kinds, ["rewrite", "paraphrase", "neighbour"])
        self.assertIn("p(true) before", draft._repr_html_())
        self.assertGreater(len(draft.steps), 1)
        before = self.model.ref("main").get()
        version = draft.commit(why="a try")
        self.assertEqual(self.model.version().digest, version.digest)
        said = self.model.complete(["The Eiffel Tower is in"], on=["v0", version], max_tokens=4)
        self.assertEqual((len(said.texts[0]), said.versions), (2, ("v0", str(version))))
        diff = self.model.diff("v0", "main")
        self.assertEqual([it.layer for it in diff.matrices], [1])
        self.assertEqual(diff.right_edits[-1].facts[0].target.strip(), "Rome")

        # Somebody else was faster: it says so, and can be computed anew.
        with self.assertRaisesRegex(pal.RefMoved, "moved by ada"):
            draft.commit(why="late")
        if PANDAS:
            frame = draft.to_pandas()
            self.assertEqual(list(frame.kind), kinds)
            self.assertEqual(frame.new_after[0], draft.probes[0].new_after)
        # What is too much for an answer is read page by page.
        listed = self.model.version(version)
        short = self.model._call(
            "VersionService/GetVersion", pal.wire.v1.GetVersionRequest(name=listed.name)
        ).version
        del short.edits[:]
        self.assertEqual(self.model._whole(short).edits, listed.edits)
        of_it = [edit.digest for edit in self.model.edits(version)]
        self.assertEqual(tuple(of_it), listed.edits)

        second = draft.rebase()
        self.assertEqual(second.edit.based_on, version.digest)
        newer = second.commit(why="again")
        self.model.revert(newer.subject_edit, why="once is enough")

        moved = self.model.ref("main").rollback(before.version, why="it was a try")
        self.assertEqual((moved.version, moved.why), (before.version, "it was a try"))
        history = self.model.ref("main").history()
        self.assertEqual(history[-1].why, "it was a try")
        tried = draft.try_on("The Eiffel Tower is in", max_tokens=2)
        self.assertEqual(len(tried.columns), 2)
        self.assertEqual(self.model.ref("main").get().version, before.version)
        tag = self.model.tag("kept", version, why="to keep")
        self.assertEqual((tag.kind, tag.version), ("tag", version.digest))
        with self.assertRaises(pal.FailedPrecondition):
            self.model.ref("kept").move("v0")

    def test_an_edit_that_fails_a_gate_is_not_taken(self) -> None:
        texts = ["The cat sat on the mat.", "The river runs beside the tower."]
        gates = {"efficacy": 0.99, "ppl_ratio": 0.01}
        draft = self.edit(collect=True, gates=gates, gate_texts=texts)
        self.assertFalse(draft.accepted)
        self.assertEqual(len(draft.gates), 2)
        self.assertIn("perplexity: that of the texts is", draft.gates[1])
        figures = draft.edit.figures
        ratio = figures["ppl.after"] / figures["ppl.before"]
        self.assertAlmostEqual(figures["ppl.ratio"], ratio, places=9)
        with self.assertRaises(pal.EditRejected):
            draft.commit()

    def test_an_edit_is_judged_by_the_questions_that_it_breaks(self) -> None:
        questions = [
            pal.Choice(task, prompt, ("Rome", "Paris", "Oslo"), right)
            for task, prompt in (("near", "The Eiffel Tower is in"), ("far", "The river is in"))
            for right in range(3)
        ]
        draft = self.edit(collect=True, gates={"downstream_drop": 1}, gate_questions=questions)
        self.assertTrue(draft.accepted, draft.gates)
        figures = draft.edit.figures
        # Each task asks the same with each answer as the right one: the model answers one of three.
        for task in ("near.", "far.", ""):
            for part, value in (("before", 1 / 3), ("after", 1 / 3), ("drop", 0)):
                self.assertAlmostEqual(figures[f"downstream.{task}{part}"], value)
        with self.assertRaises(pal.InvalidArgument) as caught:
            self.edit(gates={"downstream_drop": 0.5})
        self.assertIn("job.edit.gate_questions", str(caught.exception))

    def test_many_facts_are_planned_and_written_at_once(self) -> None:
        self.model.branch("many", "v0", why="of its own")
        model = self.model.at("many")
        facts = [
            {"prompt": "{} is in", "subject": "The tower", "target_new": "Rome"},
            {"prompt": "See {} at", "subject": "a river", "target_new": "Oslo"},
            {"prompt": "{} can", "subject": "A model", "target_new": "sing"},
        ]
        model.collect_statistics([0, 1], self_sample=4000)
        plan = model.plan_many(facts, layers=[0, 1], batch=2)
        self.assertEqual((plan.method, plan.layers), ("memit", (0, 1)))
        self.assertEqual((plan.facts, plan.batches, plan.branch), (3, 2, "many"))
        before = model.version().digest
        checks = model.check_many(facts, layers=[0, 1], batch=2)
        self.assertEqual([(it.facts, it.keys) for it in checks], [(2, 2), (1, 1)])
        self.assertEqual(list(checks[0].layers), [0, 1])
        self.assertEqual(model.version().digest, before)
        job = model.edit_many(facts, layers=[0, 1], batch=2, why="all at once")
        self.assertEqual([len(edit.facts) for edit, _ in job.edits()], [2, 1])
        self.assertEqual(
            {it.rewrite.subject for it in job.facts()}, {it["subject"] for it in facts}
        )
        self.assertEqual(model.version().digest, job.edits()[-1][1])
        if PANDAS:
            self.assertEqual(list(job.to_pandas().kind), ["rewrite"] * 3)
        # Facts that are too many for a request travel as an object.
        model.ref("many").rollback("v0", why="once more")
        with mock.patch("palimpsest._sync.model.INLINE", 10):
            again = model.edit_many(facts, layers=[0, 1], batch=2, why="as an object")
        self.assertEqual(again.plan.facts, 3)
        ours, theirs = again.edits()[0][0], job.edits()[0][0]
        self.assertEqual((ours.facts, ours.figures), (theirs.facts, theirs.figures))
        # And for more than the server takes in a message, none is computed to be planned.
        many = [
            pal.Rewrite("{} is in", f"The tower {n}", "Rome", paraphrases=("It is " + "so " * 400,))
            for n in range(4000)
        ]
        self.assertGreater(sum(it.task().ByteSize() for it in many), 4 << 20)
        planned = model.plan_many(many, layers=[0, 1], batch=1000)
        self.assertEqual((planned.facts, planned.batches), (4000, 4))
        first, other = (edit for edit, _ in again.edits())
        out = first.facts[0]
        version = model.revert(first, fact=out.subject, why="not this one")
        self.assertEqual((version.kind, version.edits[1]), ("replace", other.digest))
        self.assertEqual(model.get_edit(version.subject_edit).facts, first.facts[1:])
        with self.assertRaisesRegex(pal.InvalidArgument, "is of one fact"):
            model.revert(version.subject_edit, fact="#0")

    def test_a_version_is_exported_by_the_program(self) -> None:
        with mock.patch.dict("os.environ", {"PALIMPSEST_BINARY": str(self.site.program)}):
            with tempfile.TemporaryDirectory() as folder:
                made = self.model.export(Path(folder) / "out", version="v0")
                self.assertTrue((made / "model.safetensors").exists())
                with self.assertRaisesRegex(pal.Error, "is there already"):
                    self.model.export(made, version="v0")

    def test_facts_are_written_one_after_the_other_and_picked(self) -> None:
        self.model.branch("sequence", "v0")
        self.model.branch("picked", "v0")
        facts = [
            pal.Rewrite("{} is in", "The tower", "Rome"),
            pal.Rewrite("See {} at", "a river", "Oslo"),
        ]
        job = self.model.edit_sequence(
            facts, ref="sequence", layer=1, why="two", collect=True, progress=False
        )
        made = job.edits()
        self.assertEqual(
            [str(edit) for edit, _ in made], ["The tower is in Rome", "See a river at Oslo"]
        )
        self.assertEqual(self.model.version("sequence").digest, made[1][1])
        self.assertEqual(self.model.version("sequence~1").digest, made[0][1])
        version = self.model.cherry_pick(made[1][0], ref="picked", why="this one alone")
        self.assertEqual((version.kind, len(version.edits)), ("cherry_pick", 1))
        self.assertIn(made[0][0].digest, [edit.digest for edit in self.model.edits()])
        self.assertEqual(self.model.get_edit(made[0][0].digest[:12]).why, "two")

    def test_an_edit_without_statistics_says_so(self) -> None:
        with self.assertRaises(pal.StatisticsMissing) as caught:
            self.model.edit("{} is in", subject="The tower", target="Rome", layer=2)
        self.assertEqual(caught.exception.layer, 2)
        self.assertIn("stats collect", str(caught.exception))

    def test_versions_are_evaluated(self) -> None:
        record = {
            "requested_rewrite": {
                "prompt": "{} is in",
                "subject": "The tower",
                "target_new": {"str": "Rome"},
                "target_true": {"str": "Paris"},
            },
            "paraphrase_prompts": ["Where is the tower? In"],
            "neighborhood_prompts": ["The Louvre is in"],
        }
        job = self.model.evaluate([record, record])
        measures = job.measures()
        self.assertEqual(measures["ES"].rows, 2)
        names = {"ES", "EM", "PS", "PM", "NS", "NM"}
        free = {f"{a} {b}" for a in "EPN" for b in ("EXACT", "CONTAINS")}
        self.assertEqual(set(measures), names | free)
        first = job.records()[0]
        assert isinstance(first, pal.Evaluated)
        self.assertEqual(len(first.measured.continuations), 3)
        self.assertEqual(set(self.model.evaluate([record], free_generation=False).measures()), names)
        self.assertEqual(dict(job.before()), dict(measures))
        texts = self.model.evaluate(["The tower stands in the city.", "A river runs by it."])
        perplexity = texts.measures().perplexity
        assert perplexity is not None
        self.assertGreater(perplexity, 1.0)

    def test_choices_are_taken_and_tests_passed(self) -> None:
        asked = pal.Choice("colour", "The sky is", ("blue", "green"), right=0)
        taken = self.model.evaluate([asked])
        first = taken.records()[0]
        assert isinstance(first, pal.Evaluated)
        scores = first.measured.choices
        right = scores[0].nll < scores[1].nll
        self.assertEqual(taken.measures()["colour"].mean, float(right))
        prompt = "The tower stands in"
        said = self.model.complete(prompt, max_tokens=20)[0].text
        words = said.split("\n")[0].strip()
        self.assertTrue(words, said)
        passed = pal.Query(prompt, ((words, "nothing else"),))
        missed = pal.Query(prompt, (("a word that is not there",),))
        tests = (pal.Test("one", (passed, missed), any=True), pal.Test("both", (passed, missed)))
        measures = self.model.evaluate([pal.Record(tests=tests)]).measures()
        self.assertEqual((measures["one"].mean, measures["both"].mean), (1.0, 0.0))


class Errors(WithServer):
    def test_errors_have_their_class_and_remedy(self) -> None:
        with self.assertRaises(pal.NotFound) as missing:
            self.client.model("no-such").info()
        self.assertEqual(missing.exception.reason, "NOT_FOUND")
        self.assertIn("create the resource first", str(missing.exception))
        self.assertIsInstance(missing.exception, LookupError)
        with self.assertRaises(pal.InvalidArgument) as wrong:
            self.model.trace(PROMPT, subject=SUBJECT, samples=10**8)
        self.assertEqual(wrong.exception.fields[0].name, "job.trace.samples")
        with self.assertRaises(pal.JobFailed) as failed:
            self.model.trace([{"prompt": "a " * 200 + "b", "subject": "b"}], **SETTINGS)
        self.assertEqual(failed.exception.failures[0].failure_class, "invalid")
        with self.assertRaisesRegex(TypeError, "no such option"):
            self.model.trace(PROMPT, subject=SUBJECT, shade="blue")
        with self.assertRaisesRegex(pal.NoServer, "is 'palimpsest serve' running there"):
            pal.connect("http://127.0.0.1:9", patience=0.1)

    def test_a_model_is_imported_by_the_program(self) -> None:
        with mock.patch.dict("os.environ", {"PALIMPSEST_BINARY": str(self.site.program)}):
            model = self.client.import_model(str(FIXTURES / "gpt2"), "gpt2")
            self.assertEqual(model.info().family, "gpt2")
            with self.assertRaisesRegex(pal.Error, "no/such"):
                self.client.import_model("/no/such/folder", "x")

    def test_a_status_says_who_one_is(self) -> None:
        status = self.client.status()
        self.assertEqual(status.principal, "ada")
        self.assertIn("you are ada", str(status))
        self.assertEqual(status.violations, {})
        self.assertEqual([it.device for it in self.client.workers()], ["cpu"])
        if status.methods:
            self.assertTrue(status.may("VersionService/UpdateRef"))
            self.assertFalse(status.may("WorkerService/Connect"))


def _of_log(made: dict[str, Any]) -> dict[str, Any]:
    """What of a receipt is of the log as it was when the receipt was made."""
    return {name: made[name] for name in ("path", "checkpoint")}


class Audit(WithServer):
    def test_the_log_is_proved_here_and_damage_is_named(self) -> None:
        self.model.tag("audited", "v0")
        first = self.client.audit.verify()
        self.assertTrue(first.entries > 1)
        kept = self.client.audit.checkpoint().note
        self.model.tag("audited-2", "v0")
        second = self.client.audit.verify()
        self.assertEqual((second.entries, second.since), (first.entries + 1, first.entries))
        self.assertFalse(second.first_seen)
        self.assertEqual(self.client.audit.verify(since=kept).entries, second.entries)
        proof = self.client.audit.prove(2)
        self.assertEqual(proof.check(second.key).size, second.entries)
        self.assertEqual(self.cli("audit", "key").strip(), second.key)

        pages = Transport.pages

        def altered(transport: Any, method: str, request: Any, field: str) -> Any:
            for n, leaf in enumerate(pages(transport, method, request, field)):
                if n == 1:
                    leaf.leaf = leaf.leaf.replace(b"ada", b"eve")
                yield leaf

        with mock.patch.object(Transport, "pages", altered):
            with self.assertRaisesRegex(pal.AuditBroken, "entry 2 or one before it was altered"):
                self.client.audit.verify()
        with self.assertRaisesRegex(pal.AuditBroken, "does not fit: it was altered"):
            lied = kept.replace(f"\n{first.entries}\n", f"\n{first.entries + 1}\n")
            self.client.audit.verify(since=lied)

    def test_a_signed_export_is_checked_here_as_the_program_checks_it(self) -> None:
        import json

        folder = self.site.folder
        key = folder / "ada.key"
        public = self.site.run("auth", "signing-key", str(key), "--name", "ada").strip()
        out = folder / "signed"
        self.cli("export", str(out), "--ref", "v0", "--sign", str(key))
        manifest = pal.verify_manifest(out, public)
        told = json.loads(
            self.site.run("verify-manifest", str(out), "--key", public, "--json")
        )
        self.assertEqual((manifest.version, manifest.base), (told["version"], told["base"]))
        self.assertEqual(
            manifest.files, {it["name"]: (it["size"], it["sha256"]) for it in told["files"]}
        )
        self.assertGreater(len(manifest.files), 1)
        note = out / "palimpsest.manifest"
        text = note.read_text()
        for change, what in [
            (lambda: note.write_text(text.replace("base ", "base 0")), "it was altered"),
            (lambda: (out / "config.json").write_text("{}"), "config.json was altered"),
            (lambda: (out / "more.py").write_text(""), "more.py is not of it"),
            (lambda: (out / "tokenizer.json").unlink(), "tokenizer.json cannot be read"),
        ]:
            change()
            with self.assertRaises(pal.AuditBroken) as raised:
                pal.verify_manifest(out, public)
            self.assertIn(what, str(raised.exception))
            note.write_text(text)
        note.write_text(self.cli("sign", "v0", "--key", str(key)))
        self.assertEqual(pal.verify_manifest(note, public).files, {})

    def test_a_receipt_is_checked_here_as_the_program_checks_it(self) -> None:
        import json

        sweep = self.model.trace(PROMPT, subject=SUBJECT, **SETTINGS)
        made = sweep.receipt(with_results=True)
        key = self.cli("audit", "key").strip()
        receipt = pal.verify_receipt(made, key)
        self.assertEqual((receipt.job, receipt.state), (sweep.name, "succeeded"))
        self.assertEqual(receipt.asked.trace.facts[0].prompt, PROMPT)
        self.assertEqual(receipt.answers, tuple(sweep.results()))
        self.assertEqual(sum(count for count, _ in receipt.computed), receipt.results)
        self.assertEqual(receipt.entry.principal, "ada")
        # The program makes the same, and checks what was made here.
        told = self.cli("job", "receipt", sweep.id, "--with-results")
        theirs = json.loads(told)
        self.assertEqual({**theirs, **_of_log(made)}, made)
        file = self.site.folder / "receipt.json"
        file.write_text(json.dumps(made))
        told = self.site.run("verify-receipt", str(file), "--key", key, "--json")
        said = json.loads(told)
        self.assertEqual((said["job"], said["results_checked"]), (sweep.name, True))
        self.assertEqual(pal.verify_receipt(file, key), receipt)

        alone = {name: it for name, it in made.items() if name != "results"}
        self.assertIsNone(pal.verify_receipt(alone, key).answers)
        given = pal.verify_receipt(alone, key, results=sweep.results())
        self.assertEqual(given.answers, receipt.answers)
        swapped = [*made["results"][1:], made["results"][0]]
        for change, what in (
            ({"results": swapped}, "its results|results are not these"),
            ({"results": swapped[1:]}, "is of 3 results, these are 2"),
            ({"asked": made["entry"]}, "what was asked"),
            ({"entry": made["asked"]}, "the entry"),
            ({"path": made["path"][1:]}, "not in the audit log"),
            ({"receipt": made["receipt"].replace("succeeded", "failed")}, "it was altered"),
            ({"receipt": made["checkpoint"]}, "not those of one"),
            ({"checkpoint": made["receipt"]}, "not origin, size and root"),
        ):
            with self.subTest(change), self.assertRaisesRegex(pal.AuditBroken, what):
                pal.verify_receipt({**made, **change}, key)

    def test_entries_are_filtered(self) -> None:
        self.model.tag("filtered", "v0", why="for a test")
        [entry] = self.client.audit.entries(resource="models/llama/refs/filtered")
        self.assertEqual(
            (entry.action, entry.outcome, entry.why), ("refs.create", "ok", "for a test")
        )


class Awaited(unittest.TestCase):
    def test_the_same_names_are_awaited(self) -> None:
        async def act() -> None:
            async with pal.aconnect(site().url, user="ada") as client:
                model = client.model("llama")
                sweep = await model.trace(PROMPT, subject=SUBJECT, wait=False, **SETTINGS)
                seen = [now async for now in sweep.watch()]
                self.assertEqual((seen[-1].state, seen[-1].done), ("succeeded", 3))
                grid = await sweep.grid(kind="mlp")
                self.assertEqual(grid.effect.shape, (len(grid.tokens), 3))
                said = await model.complete(["a", "b"], max_tokens=1)
                self.assertEqual(len(said), 2)
                report = await client.audit.verify()
                self.assertGreater(report.entries, 0)
                with self.assertRaises(pal.NotFound):
                    await client.job("no-such")
                facts = [
                    pal.Fact(PROMPT, SUBJECT, attribute="x" * 3000 + str(n)) for n in range(400)
                ]
                many = await model.trace(facts, kinds=["mlp"], **SETTINGS)
                self.assertEqual(many.spec.fact_count, 400)

        asyncio.run(act())


class Calls(unittest.TestCase):
    def test_what_may_be_repeated_is_and_nothing_else(self) -> None:
        away = pal.Unavailable("away")
        self.assertIsNotNone(Transport._pause(away, "JobService/GetJob", 0))
        self.assertIsNotNone(Transport._pause(away, "JobService/CreateJob", 0))
        for method in ("VersionService/CreateEdit", "VersionService/UpdateRef"):
            self.assertIsNone(Transport._pause(away, method, 0))
            # What was refused was not done.
            pause = Transport._pause(pal.TooMany("later", retry_after=1.0), method, 0)
            assert pause is not None
            self.assertTrue(1.0 <= pause <= 1.25)
        self.assertIsNone(Transport._pause(pal.NotFound("no"), "JobService/GetJob", 0))


class Restarts(unittest.TestCase):
    def test_a_coordinator_that_is_killed_under_watch_loses_and_repeats_nothing(self) -> None:
        own = Site()
        self.addCleanup(own.close)
        coordinator = own.serve()
        model = str(FIXTURES / "llama")
        own.run("model", "import", model, "--name", "llama", "--server", own.url)
        with pal.connect(own.url, user="ada") as client:
            facts = [pal.Fact(PROMPT, SUBJECT)] * 12
            job: Job = client.model("llama").trace(facts, kinds=["mlp"], wait=False, **SETTINGS)
            seen: list[int] = []

            def watch() -> None:
                for now in job.watch(after=0):
                    seen.extend(now.committed)

            watching = threading.Thread(target=watch)
            watching.start()
            with self.assertRaisesRegex(pal.Timeout, "goes on: .*worker"):
                client.job(job.id).wait(timeout=0.3)
            own.work()
            limit = time.monotonic() + 60
            while not seen and time.monotonic() < limit:
                time.sleep(0.02)
            coordinator.send_signal(signal.SIGKILL)
            coordinator.wait()
            time.sleep(0.5)
            own.serve()
            watching.join(90)
            self.assertFalse(watching.is_alive())
            cached = job.counts.cached
            self.assertEqual(len(seen) + cached, 12)
            self.assertEqual(sorted(set(seen)), sorted(seen))
            self.assertEqual(job.state, "succeeded")


    def test_of_several_coordinators_the_one_that_leads_is_found_whenever_that_changes(self) -> None:
        own = Site()
        self.addCleanup(own.close)
        first, second = own.address, f"127.0.0.1:{free_port()}"
        with self.assertRaisesRegex(pal.NoServer, "no coordinator answers"):
            pal.connect(f"{first},{second}", user="ada", patience=0.5)
        connected: list[pal.Client] = []

        def connect() -> None:
            connected.append(pal.connect(f"{second},{first}", user="ada"))

        waiting = threading.Thread(target=connect)
        waiting.start()
        coordinator = own.serve()
        waiting.join(60)
        (client,) = connected
        with client:
            self.assertEqual(client.whoami(), "ada")
            coordinator.send_signal(signal.SIGKILL)
            coordinator.wait()
            own.address, own.port = second, int(second.rpartition(":")[2])
            own.serve()
            self.assertEqual(client.whoami(), "ada")


class Secured(unittest.TestCase):
    def test_a_certificate_signs_in_and_a_role_is_held_to(self) -> None:
        own = Site()
        self.addCleanup(own.close)
        own.run("auth", "init", "certs", "--for", "editor/ada", "--for", "viewer/bob")
        own.start("--config", "certs/server.toml", "serve", "--listen", own.address)
        own.wait_for_port()
        url = f"https://localhost:{own.port}"
        ada = pal.connect(config=own.folder / "certs/editor-ada.toml", server=url)
        self.assertEqual((ada.status().principal, ada.status().role), ("ada", "editor"))
        with pal.connect(config=own.folder / "certs/viewer-bob.toml", server=url) as bob:
            with self.assertRaises(pal.PermissionDenied) as refused:
                bob.model("m").ref("main").move("v0", etag="x")
        self.assertIn("editor", refused.exception.roles)
        ada.close()
        with self.assertRaises(pal.Unauthenticated):
            pal.connect(url, ca=own.folder / "certs/ca.pem")

    def test_a_token_signs_in_and_stands_nowhere(self) -> None:
        own = Site()
        self.addCleanup(own.close)
        token = own.run("auth", "token", "tokens", "--role", "editor", "--principal", "eve").strip()
        (own.folder / "own.toml").write_text('[serve]\ntokens = "tokens"\nstore = "store"\n')
        own.start("--config", "own.toml", "serve", "--listen", own.address)
        own.wait_for_port()
        with pal.connect(own.url, token=token, insecure=True) as client:
            self.assertEqual(client.status().principal, "eve")
            self.assertNotIn(token, f"{client!r} {client.settings!r}")
        (own.folder / "token").write_text(token + "\n")
        with pal.connect(own.url, token_file=own.folder / "token", insecure=True) as client:
            self.assertEqual(client.whoami(), "eve")
        with self.assertRaises(pal.Unauthenticated) as refused:
            pal.connect(own.url, token=token[:-1] + "_", insecure=True)
        self.assertNotIn(token[:-1], str(refused.exception))


def load_tests(loader: Any, tests: Any, pattern: Any) -> Any:
    program()  # without it there is nothing to talk to
    return tests
