"""Questions about what follows from edits (MQuAKE), and tasks that edits have nothing to do with."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .facts import Choice, Query, Record, Rewrite, Test, rewrites_of, values_of


@dataclass(frozen=True)
class Examples:
    """Solved questions that stand before those of MQuAKE."""

    #: ``Q: ... A: ...``, a line each, before questions of several facts.
    hops: str = ""
    #: The same by relation (``P36``), before questions of one fact. Without them a fact's own
    #: sentence is continued.
    by_relation: Mapping[str, str] = field(default_factory=dict)
    #: With the thoughts that lead to each answer, which begins behind ``Answer:``.
    thoughts: str = ""

    @classmethod
    def read(
        cls,
        *,
        hops: str | os.PathLike[str] | None = None,
        by_relation: str | os.PathLike[str] | None = None,
        thoughts: str | os.PathLike[str] | None = None,
    ) -> Examples:
        """Reads them from files."""

        def text(path: str | os.PathLike[str] | None) -> str:
            return "" if path is None else Path(path).read_text(encoding="utf-8")

        return cls(text(hops), json.loads(text(by_relation) or "{}"), text(thoughts))


def _asked(before: str, question: str) -> str:
    return f"{before.rstrip()}\n" * bool(before) + f"Q: {question} A:"


def read_mquake(
    path: str | os.PathLike[str], examples: Examples = Examples()
) -> tuple[list[Rewrite], list[Record]]:
    """Reads MQuAKE: the facts to edit, all of them together, and the records to evaluate by.

    A fact that several instances edit is given once. The records' criteria are ``edit-wise``,
    ``instance-wise``, ``multi-hop`` and, with thoughts, ``multi-hop with thoughts``.

    Raises:
        ValueError: a record is wrong; the message names it.
    """
    rewrites: dict[tuple[str, str], Rewrite] = {}
    records: list[Record] = []
    for n, value in enumerate(values_of(Path(path))):
        place = f"{path}, record {n}"
        if not isinstance(value, Mapping) or not isinstance(value.get("requested_rewrite"), list):
            raise ValueError(f"{place}: requested_rewrite: give a list of the facts that are edited")
        edits = rewrites_of([{"requested_rewrite": it} for it in value["requested_rewrite"]])
        for edit in edits:
            known = rewrites.setdefault((edit.prompt, edit.subject), edit)
            if known.target != edit.target:
                raise ValueError(
                    f"{place}: {edit.subject!r} becomes {edit.target!r}, and in another record"
                    f" {known.target!r}: take records that agree"
                )
        try:
            records.append(_instance(value, edits, examples))
        except KeyError as missing:
            raise ValueError(f"{place}: {missing}: is missing") from None
    return list(rewrites.values()), records


def _instance(value: Mapping[str, Any], edits: list[Rewrite], examples: Examples) -> Record:
    hops = value.get("new_single_hops", [])
    triples = value.get("orig", {}).get("new_triples", [])
    names = {it["cloze"]: (it["answer"], *it.get("answer_alias", ())) for it in hops}
    tests: list[Test] = []
    for edit in edits:
        prompt = edit.prompt.replace("{}", edit.subject, 1)
        tests.append(Test("edit-wise", (Query(prompt, (names.get(prompt, (edit.target,)),)),)))
    if hops:
        relations = [it[1] for it in triples] + [""] * len(hops)
        singles: list[Query] = []
        for hop, relation in zip(hops, relations):
            before = examples.by_relation.get(relation)
            prompt = hop["cloze"] if before is None else _asked(before, hop["question"])
            singles.append(Query(prompt, (names[hop["cloze"]],)))
        tests.append(Test("instance-wise", tuple(singles)))
    answer = ((value["new_answer"], *value.get("new_answer_alias", ())),)
    plain = tuple(Query(_asked(examples.hops, it), answer) for it in value["questions"])
    tests.append(Test("multi-hop", plain, any=True))
    if examples.thoughts:
        before = examples.thoughts.rstrip()
        thinking = tuple(
            Query(f"{before}\n\nQuestion: {it}\nThoughts:", answer, behind="Answer:")
            for it in value["questions"]
        )
        tests.append(Test("multi-hop with thoughts", thinking, any=True))
    return Record(edits[0] if len(edits) == 1 else None, tests=tuple(tests))


def read_choices(path: str | os.PathLike[str], shots: int = 0) -> list[Choice]:
    """Reads a task: SST-2 or CoLA, which the file's name tells apart, RTE, MMLU, or records of
    ``prompt``, ``choices`` and ``answer``. The first ``shots`` records, of each answer as many,
    stand solved before each of the others.

    Raises:
        ValueError: a record is wrong; the message names it.
    """
    shown: list[Choice] = []
    asked: list[Choice] = []
    found = [
        _choice(it, Path(path).stem, f"{path}, record {n}")
        for n, it in enumerate(values_of(Path(path)))
    ]
    answers = max((len(it.choices) for it in found), default=1)
    for it in found:
        alike = sum(other.right == it.right for other in shown)
        show = len(shown) < shots and alike < -(-shots // answers)
        (shown if show else asked).append(it)
    before = "".join(f"{it.prompt} {it.choices[it.right]}\n" for it in shown)
    return [Choice(it.task, before + it.prompt, it.choices, it.right) for it in asked]


def _choice(value: Any, name: str, place: str) -> Choice:
    def text(key: str) -> str:
        found = value.get(key)
        if not isinstance(found, str) or not found.strip():
            raise ValueError(f"{place}: {key}: give a text")
        return found.strip()

    def of(task: str, prompt: str, choices: tuple[str, ...], key: str) -> Choice:
        right = value.get(key)
        if type(right) is not int or not 0 <= right < len(choices):
            raise ValueError(f"{place}: {key}: give the number of the right answer, from 0")
        return Choice(task, prompt, choices, right)

    if "sentence1" in value:
        prompt = f"{text('sentence1')}\nquestion: {text('sentence2')} True or False?\nanswer:"
        return of("rte", prompt, ("True", "False"), "label")
    if "sentence" in value and "sst" in name.lower():
        prompt = f"Review : {text('sentence')}\nSentiment :"
        return of("sst2", prompt, ("negative", "positive"), "label")
    if "sentence" in value and "cola" in name.lower():
        question = "Is this sentence linguistically acceptable?"
        prompt = f"{question}\nSentence: {text('sentence')}\nAnswer:"
        return of("cola", prompt, ("No", "Yes"), "label")
    choices = tuple(value.get("choices", ()))
    if not 2 <= len(choices) <= 26:
        raise ValueError(
            f"{place}: choices: give 2 to 26 answers, or call a file of sentences sst2 or cola"
        )
    if "question" not in value:
        return of(name, text("prompt"), choices, "answer")
    letters = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(choices)])
    listed = "".join(f"({letter}) {it}\n" for letter, it in zip(letters, choices))
    return of("mmlu", f"Question: {text('question')}\n{listed}Answer:", letters, "answer")
