"""The package itself: its parts fit each other, the program, and the published vectors."""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import palimpsest as pal
from palimpsest import blake3, errors, merkle, wire
from palimpsest.facts import fact_of, records_of, rewrites_of
from palimpsest.progress import Bar
from palimpsest.roles import ROLES, role_tokens
from palimpsest.verification import rank_correlation

from .site import ROOT

PACKAGE = ROOT / "src/python"
PROJECT = (PACKAGE / "pyproject.toml").read_text()


class Package(unittest.TestCase):
    def test_the_blocking_client_is_made_from_the_awaited_one(self) -> None:
        done = subprocess.run(
            [sys.executable, PACKAGE / "unasync.py", "--check"], capture_output=True, text=True
        )
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_questions_about_what_follows_are_read_as_the_program_reads_them(self) -> None:
        def rewrite(subject: str, new: str) -> dict[str, Any]:
            target = {"target_new": {"str": new}, "target_true": {"str": "Paris"}}
            return {"prompt": "{} is in", "subject": subject, **target}

        def hop(question: str, cloze: str, answer: str) -> dict[str, Any]:
            named = {"answer": answer, "answer_alias": ["the other"]}
            return {"question": question, "cloze": cloze, **named}

        record = {
            "requested_rewrite": [rewrite("The Louvre", "Rome"), rewrite("Rome", "Asia")],
            "questions": ["Where is the Louvre's city?", "And where?"],
            "new_answer": "Asia",
            "new_answer_alias": ["AS"],
            "new_single_hops": [
                hop("Where is The Louvre?", "The Louvre is in", "Rome"),
                hop("Where is Rome?", "Rome is in", "Asia"),
            ],
            "orig": {"new_triples": [["Q1", "P1", "Q2"], ["Q2", "P9", "Q3"]]},
        }
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "mquake.json"
            path.write_text(json.dumps([record]))
            examples = pal.Examples(
                hops="Q: 3? A: 4", by_relation={"P9": "Q: 1? A: 2\n"}, thoughts="Answer: 7"
            )
            rewrites, records = pal.read_mquake(path, examples)
            self.assertEqual([it.target for it in rewrites], ["Rome", "Asia"])
            told = [
                (it.criterion, it.any, [query.prompt for query in it.queries])
                for it in records[0].tests
            ]
            hops = ["Where is the Louvre's city?", "And where?"]
            thinking = [f"Answer: 7\n\nQuestion: {it}\nThoughts:" for it in hops]
            self.assertEqual(
                told,
                [
                    ("edit-wise", False, ["The Louvre is in"]),
                    ("edit-wise", False, ["Rome is in"]),
                    (
                        "instance-wise",
                        False,
                        ["The Louvre is in", "Q: 1? A: 2\nQ: Where is Rome? A:"],
                    ),
                    ("multi-hop", True, [f"Q: 3? A: 4\nQ: {it} A:" for it in hops]),
                    ("multi-hop with thoughts", True, thinking),
                ],
            )
            self.assertEqual(records[0].tests[0].queries[0].answers, (("Rome", "the other"),))
            task = Path(folder) / "sst2.json"
            lines = [{"sentence": f"s{n}", "label": int(n < 2)} for n in range(4)]
            task.write_text("\n".join(json.dumps(it) for it in lines))
            asked = pal.read_choices(task, shots=2)
            self.assertEqual(
                asked[0].prompt,
                "Review : s0\nSentiment : positive\nReview : s2\nSentiment : negative\n"
                "Review : s1\nSentiment :",
            )
            task.write_text(json.dumps({"sentence": "a", "label": 2}))
            with self.assertRaisesRegex(ValueError, "label: give the number"):
                pal.read_choices(task)

    def test_the_types_of_messages_are_made_from_the_contract(self) -> None:
        done = subprocess.run(
            [sys.executable, PACKAGE / "stubs.py", "--check"], capture_output=True, text=True
        )
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_the_version_is_the_programs(self) -> None:
        cargo = (ROOT / "Cargo.toml").read_text()
        found = re.search(r'^version = "(.*)"', cargo, re.MULTILINE)
        assert found is not None
        self.assertEqual(pal.__version__, found[1])
        # The extra brings the program of the same version.
        server = re.search(r'^server = \["palimpsest-lm-server==(.*)"\]', PROJECT, re.MULTILINE)
        assert server is not None
        self.assertEqual(server[1], found[1])

    def test_every_reason_of_the_server_has_its_class(self) -> None:
        source = (ROOT / "src/api/status/mod.rs").read_text()
        table = source[source.index("reasons! {") :]
        rows = re.findall(r'^    (\w+), (\w+), "', table, re.MULTILINE)
        self.assertGreater(len(rows), 30)
        snake = {
            re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper(): re.sub(
                r"(?<!^)(?=[A-Z])", "_", code
            ).upper()
            for name, code in rows
        }
        self.assertEqual(set(snake), set(errors.REASONS))
        for reason, code in snake.items():
            # A reason's class says no less than its code's.
            self.assertTrue(issubclass(errors.REASONS[reason], errors.CODES[code]), reason)

    def test_every_call_of_the_contract_has_its_messages(self) -> None:
        for name in ("JobService/CreateJob", "ObjectService/WriteObject", "JobService/WatchJob"):
            self.assertIn(name, wire.METHODS)
        self.assertTrue(wire.METHODS["JobService/WatchJob"].gives_stream)
        self.assertEqual(wire.number("Kind", "hidden_severed_mlp"), 4)
        self.assertEqual(wire.number("Compat", "paper-code"), 2)
        with self.assertRaisesRegex(ValueError, "none of hidden, mlp, attn"):
            wire.number("Kind", "heads")

    def test_an_error_keeps_what_the_server_said(self) -> None:
        info = wire.rpc.ErrorInfo(reason="TOO_MUCH_OPEN", domain="palimpsest")
        info.metadata["remedy"] = "wait"
        info.metadata["owner"] = "ada"
        retry = wire.rpc.RetryInfo()
        retry.retry_delay.seconds, retry.retry_delay.nanos = 2, 500_000_000
        wrong = wire.rpc.BadRequest()
        wrong.field_violations.add(field="job.trace", description="is empty")
        status = wire.rpc.Status(code=8, message="too much")
        for it in (info, retry, wrong):
            detail = status.details.add()
            detail.type_url = f"type.googleapis.com/{it.DESCRIPTOR.full_name}"
            detail.value = it.SerializeToString()

        class Call:
            def code(self) -> Any:
                import grpc

                return grpc.StatusCode.RESOURCE_EXHAUSTED

            def details(self) -> str:
                return "too much"

            def trailing_metadata(self) -> Any:
                return [("grpc-status-details-bin", status.SerializeToString())]

        error = errors.of_call(Call())
        self.assertIs(type(error), pal.TooMany)
        self.assertEqual(str(error), "too much (wait)")
        self.assertEqual(error.retry_after, 2.5)
        self.assertEqual(error.metadata, {"owner": "ada"})
        self.assertEqual(error.fields[0].name, "job.trace")


class Bars(unittest.TestCase):
    def test_a_bar_says_how_a_job_goes_and_nothing_where_nobody_looks(self) -> None:
        now = pal.Progress("running", 10, 4, 1, 2, 8.0, 3, "grids", "", 7)
        said = io.StringIO()
        with mock.patch("sys.stderr", said):
            quiet = Bar("01a2", None)
            quiet.show(now)
            quiet.close()
            self.assertEqual(said.getvalue(), "")
            with mock.patch.dict("sys.modules", {"tqdm": None, "tqdm.auto": None}):
                bar = Bar("01a2", True)
                bar.show(now)
                bar.show(now)
                bar.close()
        line = "job 01a2: 4 of 10 units, running, 1 failed, 2 cached, 8/s on 3\n"
        self.assertEqual(said.getvalue(), line)


class Digests(unittest.TestCase):
    def test_blake3_is_that_of_the_published_vectors(self) -> None:
        # https://github.com/BLAKE3-team/BLAKE3/blob/master/test_vectors/test_vectors.json
        vectors = {
            0: "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
            1: "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
            1024: "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
            1025: "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
            31744: "62b6960e1a44bcc1eb1a611a8d6235b6b4b78f32e7abc4fb4c6cdcce94895c47",
        }
        for length, expected in vectors.items():
            data = bytes(i % 251 for i in range(length))
            self.assertEqual(blake3.digest(data), expected, f"{length} bytes")

    def test_the_tree_is_that_of_the_published_vectors(self) -> None:
        inputs = [
            "",
            "00",
            "10",
            "2021",
            "3031",
            "40414243",
            "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        ]
        roots = {
            1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        }
        frontier = merkle.Frontier()
        for n, it in enumerate(inputs, 1):
            frontier.push(merkle.leaf_hash(bytes.fromhex(it)))
            if n in roots:
                self.assertEqual(frontier.root().hex(), roots[n])
        path = [
            bytes.fromhex(it)
            for it in (
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            )
        ]
        leaf, root = merkle.leaf_hash(bytes.fromhex(inputs[5])), bytes.fromhex(roots[8])
        self.assertTrue(merkle.is_included(leaf, 5, 8, path, root))
        self.assertFalse(merkle.is_included(leaf, 4, 8, path, root))
        self.assertFalse(merkle.is_included(leaf, 5, 8, path[:2], root))
        path[1] = bytes(32)
        self.assertFalse(merkle.is_included(leaf, 5, 8, path, root))

    def test_every_growth_of_a_tree_is_proved_and_no_other_one(self) -> None:
        leaves = [merkle.leaf_hash(bytes([n])) for n in range(20)]

        def root(of: list[bytes]) -> bytes:
            frontier = merkle.Frontier()
            for leaf in of:
                frontier.push(leaf)
            return frontier.root()

        def proof(of: list[bytes], old: int, whole: bool) -> list[bytes]:
            if old == len(of):
                return [] if whole else [root(of)]
            half = 1 << ((len(of) - 1).bit_length() - 1)
            if old <= half:
                return [*proof(of[:half], old, whole), root(of[half:])]
            return [*proof(of[half:], old - half, False), root(of[:half])]

        for size in range(1, 21):
            for old in range(1, size + 1):
                path = proof(leaves[:size], old, True)
                before, now = root(leaves[:old]), root(leaves[:size])
                holds = merkle.is_consistent
                self.assertTrue(holds(old, before, size, now, path), f"{old} of {size}")
                self.assertFalse(holds(old, bytes(32), size, now, path))
                self.assertFalse(holds(old, before, size, now, [*path, bytes(32)]))

    def test_signatures_are_those_of_rfc_8032(self) -> None:
        key = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
        signature = bytes.fromhex(
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        )
        self.assertTrue(merkle.verify(key, b"\x72", signature))
        self.assertFalse(merkle.verify(key, b"\x73", signature))
        self.assertFalse(merkle.verify(key, b"\x72", signature[:-1] + b"\x01"))
        # A key of small order would take anything.
        self.assertFalse(merkle.verify(b"\x01" + bytes(31), b"\x72", signature))


class Data(unittest.TestCase):
    def test_records_mean_the_same_in_every_form(self) -> None:
        full = {
            "case_id": 7,
            "requested_rewrite": {
                "prompt": "{} is in",
                "subject": "The Louvre",
                "target_new": {"str": "Rome"},
                "target_true": {"str": "Paris"},
                "relation_id": "P131",
            },
            "paraphrase_prompts": ["Where is the Louvre? In"],
            "neighborhood_prompts": ["Orsay is in", "The Seine is in"],
        }
        [fact] = pal.Facts.of([full])
        expected = pal.Fact("The Louvre is in", "The Louvre", "Paris", "P131", "7")
        self.assertEqual(fact, expected)
        [rewrite] = rewrites_of([full])
        self.assertEqual(
            (rewrite.prompt, rewrite.target, rewrite.true), ("{} is in", "Rome", "Paris")
        )
        kind, [record] = records_of([full])
        self.assertEqual((kind, record.neighbour_answers), ("counterfact", ("Paris", "Paris")))
        zsre = {
            "subject": "Ada",
            "src": "Who was Ada?",
            "alt": "a poet",
            "answers": ["a mathematician"],
            "rephrase": "Ada was who?",
            "loc": "nq question: who wrote it",
            "loc_ans": "Mary",
        }
        kind, [record] = records_of([zsre])
        assert record.rewrite is not None
        self.assertEqual(kind, "zsre")
        self.assertEqual(record.rewrite.neighbours, ("who wrote it",))
        self.assertEqual(records_of(["A text.", "Another."])[0], "texts")

    def test_a_subject_stands_where_its_template_says(self) -> None:
        fact = fact_of("Né à Né, {} est", "Né")
        self.assertEqual(fact, pal.Fact("Né à Né, Né est", "Né", subject_start=12))
        self.assertEqual(fact_of("Ada was", "Ada"), pal.Fact("Ada was", "Ada"))

    def test_a_record_that_is_wrong_is_named(self) -> None:
        with self.assertRaisesRegex(ValueError, "record 1: subject: give a text"):
            pal.Facts.of([{"prompt": "a", "subject": "a"}, {"prompt": "b"}])
        with self.assertRaisesRegex(ValueError, "'x' is not in 'a b'"):
            pal.Facts.of([{"prompt": "a b", "subject": "x"}])

    def test_roles_cover_a_prompt_in_order(self) -> None:
        found = [list(role_tokens(role, slice(1, 5), 9)) for role in ROLES]
        self.assertEqual(found, [[1], [2, 3], [4], [5], [6, 7], [8]])
        short = [list(role_tokens(role, slice(0, 1), 4)) for role in ROLES]
        self.assertEqual(short, [[0], [], [0], [1], [2], [3]])

    def test_modules_import_each_other_in_one_direction(self) -> None:
        root = Path(pal.__file__).parent
        modules = {
            ".".join(file.relative_to(root).with_suffix("").parts): file
            for file in root.rglob("*.py")
            if file.name != "__init__.py"
        }
        imports: dict[str, set[str]] = {}
        for name, file in modules.items():
            imports[name] = set()
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.level:
                    above = name.split(".")[: -node.level]
                    base = above + (node.module.split(".") if node.module else [])
                    named = [".".join(base)] + [".".join([*base, it.name]) for it in node.names]
                    imports[name].update(it for it in named if it in modules)
        self.assertGreater(sum(map(len, imports.values())), 50)
        while free := {it for it, used in imports.items() if not used & imports.keys()}:
            imports = {it: used for it, used in imports.items() if it not in free}
        self.assertEqual(imports, {}, "in a circle, or above one")

    def test_facts_say_what_corrupts_them(self) -> None:
        def of(**more: Any) -> pal.Fact:
            record = {"prompt": "{} lives in", "subject": "Ada", **more}
            return pal.Facts.of([record])[0]

        other = of(corrupted="Bob lives in", foil="Rome")
        self.assertEqual((other.corrupted, other.foil), ("Bob lives in", "Rome"))
        self.assertEqual(other, of(corrupted={"subject": "Bob", "answer": "Rome"}))
        self.assertEqual(of(corrupted={"prompt": "Bob works in"}).corrupted, "Bob works in")
        message = other.message()
        self.assertEqual((message.corrupted, message.foil), ("Bob lives in", "Rome"))
        for wrong, named in (
            ({"corrupted": {}}, "corrupted.subject"),
            ({"corrupted": " "}, "corrupted: give a text"),
            ({"foil": "a", "corrupted": {"subject": "Bob", "answer": "b"}}, "contradict"),
        ):
            with self.assertRaisesRegex(ValueError, named):
                of(**wrong)

    def test_verified_cells_say_how_good_estimates_are(self) -> None:
        def grid(**more: Any) -> pal.Grid:
            readings = [
                wire.v1.MetricReading(metric=4, corrupted=2.0, scores=[2.0, 0.5, 1.0, 3.0])
            ]
            cells = [(1, 0, False, [0.6, 1.5]), (0, 1, False, [0.4, 0.5]), (0, 0, True, [0.05, 2.25])]
            message = wire.v1.Grid(
                kind=2,
                tokens=["t", "u"],
                subject_end=1,
                correct_prediction=True,
                high=0.9,
                low=0.1,
                layers=2,
                scores=[0.1, 0.5, 0.9, 0.3],
                readings=readings,
                engine=3,
                verified=[
                    wire.v1.VerifiedCell(token=t, layer=layer, random=chance, exact=exact)
                    for t, layer, chance, exact in cells
                ],
                **more,
            )
            return pal.Grid.of(0, message)

        found = grid().verification
        assert found is not None and found.missed is not None
        self.assertEqual((found.top, found.random, found.rank_correlation), (2, 1, 1.0))
        self.assertEqual(found.largest_miss[:2], (1, 0))
        self.assertAlmostEqual(found.largest_miss.exact, 0.5)
        self.assertAlmostEqual(found.missed.effect, 0.05)
        self.assertAlmostEqual(found.missed.part, 0.95)
        kl = grid().in_metric("kl").verification
        assert kl is not None and kl.missed is not None
        self.assertEqual((kl.largest_miss.estimate, kl.largest_miss.exact), (1.0, 0.5))
        self.assertEqual(kl.missed.effect, 0.25)
        self.assertEqual(grid().estimate, "first-order estimate")
        dropped = grid(attribution_steps=8, grad_drop=True)
        self.assertEqual(
            dropped.estimate,
            "first-order estimate, gradients of 8 steps, magnitudes by gradient drop",
        )
        self.assertIn(f", {dropped.estimate}</text>", dropped.svg())
        with self.assertRaisesRegex(ValueError, "average them apart"):
            pal.Averages.over([grid(), dropped])
        # statistics.correlation(.., method="ranked") of these lists.
        ranked = rank_correlation([0.3, -0.1, 0.7, 0.2, 0.2, 1.5], [0.1, 0.1, 0.9, 0.4, -0.3, 0.8])
        self.assertAlmostEqual(ranked or 0, 0.6764705882352942)
        self.assertIsNone(rank_correlation([1.0, 1.0], [1.0, 2.0]))

    def test_averages_have_their_errors_and_leave_wrong_answers_out(self) -> None:
        def grid(clean: float, low: float, scores: list[list[float]], correct: bool = True) -> Any:
            message = wire.v1.Grid(
                kind=2,
                tokens=["t"] * len(scores),
                subject_begin=0,
                subject_end=1,
                correct_prediction=correct,
                high=clean,
                low=low,
                layers=len(scores[0]) if correct else 0,
                scores=[it for row in scores for it in row] if correct else [],
            )
            return pal.Grid.of(0, message)

        grids = [
            grid(0.9, 0.1, [[0.5, 0.2], [0.1, 0.1], [0.2, 0.1], [0.4, 0.1], [0.1, 0.9]]),
            grid(0.5, 0.2, [[0.3, 0.2], [0.2, 0.2], [0.2, 0.5]]),
            grid(0.5, 0.2, [[0.3, 0.2]], correct=False),
        ]
        made = pal.Averages.over(grids)
        assert made is not None
        self.assertEqual((made.wrong, made.total_effect.rows), (1, 2))
        self.assertAlmostEqual(made.total_effect.mean, 0.55)
        half = made.total_effect.half_width
        assert half is not None
        self.assertAlmostEqual(half, 1.959963984540054 * 0.25)
        site = made.locate()
        assert site is not None
        self.assertEqual((site.role, site.layer), ("last", 1))
        self.assertTrue(np.isnan(made.effect[ROLES.index("middle subject")]).all())
        self.assertEqual(grids[0].peak[1:3], (4, 1))
        self.assertFalse(grids[0].scores.flags.writeable)
        self.assertIsNone(pal.Averages.over([]))

    def test_metrics_directions_and_kinds_are_averaged_apart(self) -> None:
        def grid(**more: Any) -> pal.Grid:
            message = wire.v1.Grid(
                kind=2,
                tokens=["a", "b"],
                subject_end=1,
                correct_prediction=True,
                high=0.9,
                low=0.1,
                layers=2,
                scores=[0.1, 0.5, 0.2, 0.3],
                readings=[
                    wire.v1.MetricReading(
                        metric=wire.number("Metric", "kl"),
                        clean=0.0,
                        corrupted=2.0,
                        scores=[2.0, 1.0, 1.5, 2.0],
                    )
                ],
            )
            message.MergeFrom(wire.v1.Grid(**more))
            return pal.Grid.of(0, message)

        noising = wire.number("Direction", "noising")
        for other in (
            grid().in_metric("kl"),
            grid(direction=noising),
            grid(kind=wire.number("Kind", "attn")),
        ):
            with self.assertRaisesRegex(ValueError, "average them apart"):
                pal.Averages.over([grid(), other])
        # KL falls as the answer comes back: what is restored is positive all the same.
        made = pal.Averages.over([grid().in_metric("kl")])
        assert made is not None
        self.assertEqual((made.metric, made.total_effect.mean), ("kl", 2.0))
        np.testing.assert_array_equal(made.effect[ROLES.index("last")], [0.5, 0.0])
        back = pal.Averages.over([grid(direction=noising)])
        assert back is not None
        self.assertEqual(back.direction, "noising")
        np.testing.assert_allclose(back.effect[ROLES.index("last")], [0.7, 0.6])
