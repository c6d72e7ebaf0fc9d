"""What jobs are asked about: facts to trace, facts to rewrite, records to evaluate by.

Files are those that the command line reads, by what they hold: known_1000, CounterFact in full or
flat, zsRE, and relations of the LRE data set; as a list, a record a line, or one record.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, Union, overload

from .wire import v1

EvalSet: TypeAlias = Literal["counterfact", "zsre", "texts", "tests", "choices"]


@dataclass(frozen=True)
class Fact:
    """A sentence that ends where the model is to complete a fact about its subject."""

    prompt: str
    subject: str
    #: The expected answer. A fact that the model answers otherwise is recorded and not traced.
    attribute: str | None = None
    relation: str | None = None
    id: str | None = None
    #: Where the subject begins, in bytes of UTF-8; None for its first occurrence.
    subject_start: int | None = None
    #: The prompt that it is corrupted with, of as many tokens; noise leaves it unused.
    corrupted: str | None = None
    #: The answer that its own is compared with; None for the answer to the corrupted prompt.
    foil: str | None = None

    def message(self) -> Any:
        """The fact as the contract has it."""
        return v1.Fact(
            prompt=self.prompt,
            subject=self.subject,
            attribute=self.attribute,
            relation=self.relation,
            id=self.id,
            subject_start=self.subject_start,
            corrupted=self.corrupted,
            foil=self.foil,
        )


@dataclass(frozen=True)
class Rewrite:
    """A fact that is to be rewritten, and the prompts that show what happened."""

    #: The sentence up to its object, with one ``{}`` for the subject.
    prompt: str
    subject: str
    target: str
    true: str | None = None
    paraphrases: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()
    id: str | None = None

    def request(self) -> Any:
        """The fact alone, as the contract has it."""
        return v1.EditRequest(
            prompt=self.prompt,
            subject=self.subject,
            target_new=self.target,
            target_true=self.true,
            id=self.id,
        )

    def task(self) -> Any:
        """The fact with its prompts, as the contract has it."""
        return v1.EditTask(
            request=self.request(), paraphrases=self.paraphrases, neighbours=self.neighbours
        )


@dataclass(frozen=True)
class Query:
    """A prompt that is continued by its likeliest tokens, and what must stand in the first line of
    what comes: every answer, by one of its names."""

    prompt: str
    answers: tuple[tuple[str, ...], ...]
    #: The model may think first: the answer stands behind this mark.
    behind: str = ""

    def message(self) -> Any:
        """The query as the contract has it."""
        answers = [v1.EvalExpected(names=names) for names in self.answers]
        return v1.EvalQuery(prompt=self.prompt, answers=answers, behind=self.behind)


@dataclass(frozen=True)
class Test:
    """Questions that are passed or not, counted by their criterion."""

    __test__ = False  # for pytest, which takes the name for its own

    criterion: str
    queries: tuple[Query, ...]
    #: One question that is passed is enough.
    any: bool = False

    def message(self) -> Any:
        """The test as the contract has it."""
        queries = [it.message() for it in self.queries]
        return v1.EvalTest(criterion=self.criterion, queries=queries, any=self.any)


@dataclass(frozen=True)
class Choice:
    """A question with a few answers, of which the likeliest a token is taken."""

    task: str
    prompt: str
    choices: tuple[str, ...]
    #: Which of them is right, from 0.
    right: int


@dataclass(frozen=True)
class Record:
    """What an evaluation asks: a rewritten fact with its prompts; or tests, a choice, or a text."""

    rewrite: Rewrite | None = None
    #: The neighbours' true answers, one each.
    neighbour_answers: tuple[str, ...] = ()
    generation_prompts: tuple[str, ...] = ()
    text: str = ""
    tests: tuple[Test, ...] = ()
    choice: Choice | None = None

    @property
    def set(self) -> EvalSet:
        """The data set whose measures it has, unless it is of zsRE."""
        if self.choice is not None:
            return "choices"
        if self.tests:
            return "tests"
        return "texts" if self.rewrite is None else "counterfact"

    def message(self) -> Any:
        """The record as the contract has it."""
        if self.choice is not None:
            asked = self.choice
            return v1.EvalRecord(
                choice=v1.EvalChoice(
                    task=asked.task, prompt=asked.prompt, choices=asked.choices, right=asked.right
                )
            )
        tests = [it.message() for it in self.tests]
        if self.rewrite is None:
            return v1.EvalRecord(text=self.text, tests=tests)
        answers = zip(self.rewrite.neighbours, self.neighbour_answers)
        return v1.EvalRecord(
            request=self.rewrite.request(),
            paraphrases=self.rewrite.paraphrases,
            neighbours=[
                v1.EvalNeighbour(prompt=prompt, target_true=true) for prompt, true in answers
            ],
            generation_prompts=self.generation_prompts,
            text=self.text,
            tests=tests,
        )


class Facts(Sequence[Fact]):
    """Facts in order."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        self._facts = tuple(facts)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Facts:
        """Reads a file of facts.

        Raises:
            ValueError: a record is wrong; the message names it.
        """
        return cls(_facts_of(values_of(Path(path)), str(path)))

    @classmethod
    def of(cls, facts: FactsLike) -> Facts:
        """Facts from whatever holds some: facts, dicts, a DataFrame, a file's path."""
        if isinstance(facts, Facts):
            return facts
        if isinstance(facts, Fact):
            return cls([facts])
        if isinstance(facts, (str, os.PathLike)):
            return cls.read(facts)
        listed = _listed(facts)
        made: list[Fact] = []
        for n, it in enumerate(listed):
            made += [it] if isinstance(it, Fact) else _facts_of([it], "facts", n)
        return cls(made)

    @overload
    def __getitem__(self, at: int) -> Fact: ...
    @overload
    def __getitem__(self, at: slice) -> Facts: ...
    def __getitem__(self, at: int | slice) -> Fact | Facts:
        return Facts(self._facts[at]) if isinstance(at, slice) else self._facts[at]

    def __len__(self) -> int:
        return len(self._facts)

    def __repr__(self) -> str:
        return f"Facts({len(self)})"


FactsLike: TypeAlias = Union[
    Facts, Fact, str, "os.PathLike[str]", Iterable[Fact | Mapping[str, Any]], Any
]


def fact_of(prompt: str, subject: str) -> Fact:
    """A fact of one prompt: its subject stands where ``{}`` stands, or is a part of it."""
    if "{}" not in prompt:
        return Fact(prompt, subject)
    before, _, after = prompt.partition("{}")
    return _placed(before, subject, after)


def read_rewrites(path: str | os.PathLike[str]) -> list[Rewrite]:
    """Reads a file of facts to rewrite: CounterFact in full or flat, or zsRE.

    Raises:
        ValueError: a record is wrong; the message names it.
    """
    return [_rewrite(_Entry(it, f"{path}, record {n}")) for n, it in enumerate(values_of(Path(path)))]


def rewrites_of(facts: Any) -> list[Rewrite]:
    """Facts to rewrite from whatever holds some."""
    if isinstance(facts, Rewrite):
        return [facts]
    if isinstance(facts, (str, os.PathLike)):
        return read_rewrites(facts)
    return [
        it if isinstance(it, Rewrite) else _rewrite(_Entry(it, f"record {n}"))
        for n, it in enumerate(_listed(facts))
    ]


def read_records(path: str | os.PathLike[str]) -> tuple[EvalSet, list[Record]]:
    """Reads a data set that edits are judged by: which one it is, and its records."""
    return records_of(values_of(Path(path)))


def records_of(records: Any) -> tuple[EvalSet, list[Record]]:
    """Records from whatever holds some. Plain texts are texts, and choices choices."""
    if isinstance(records, (str, os.PathLike)):
        return read_records(records)
    found: list[Record] = []
    sets: set[EvalSet] = set()
    for n, it in enumerate(_listed(records)):
        if isinstance(it, str):
            found.append(Record(text=it))
            sets.add("texts")
        elif isinstance(it, Record):
            found.append(it)
            sets.add(it.set)
        elif isinstance(it, Choice):
            found.append(Record(choice=it))
            sets.add("choices")
        else:
            entry = _Entry(it, f"record {n}")
            found.append(_record(entry))
            sets.add("zsre" if entry.asks_one else "counterfact")
    if len(sets) != 1:
        raise ValueError("give records of one data set, and one at least")
    return sets.pop(), found


def _listed(values: Any) -> list[Any]:
    if hasattr(values, "to_dict") and hasattr(values, "columns"):  # a DataFrame
        rows: list[dict[str, Any]] = values.to_dict("records")
        return [{k: v for k, v in row.items() if v is not None and v == v} for row in rows]
    return [values] if isinstance(values, Mapping) else list(values)


def values_of(path: Path) -> list[Any]:
    """What a file of records holds: a JSON list, one record, or one a line."""
    text = path.read_text(encoding="utf-8-sig")
    try:
        whole = json.loads(text)
        return whole if isinstance(whole, list) else [whole]
    except json.JSONDecodeError:
        pass
    values: list[Any] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            values.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    return values


def _placed(before: str, subject: str, after: str) -> Fact:
    prompt = f"{before}{subject}{after}"
    start = None if prompt.find(subject) == len(before) else len(before.encode())
    return Fact(prompt, subject, subject_start=start)


def _facts_of(values: Sequence[Any], file: str, first: int = 0) -> list[Fact]:
    if len(values) == 1 and isinstance(values[0], Mapping) and "samples" in values[0]:
        return _relation(values[0], file)
    made: list[Fact] = []
    for n, it in enumerate(values, first):
        entry = _Entry(it, f"{file}, record {n}")
        fact = _placed(entry.before, entry.subject, entry.after)
        fact = replace(fact, attribute=entry.true, relation=entry.relation, id=entry.id)
        made.append(_corrupted(fact, entry.value, entry.before, entry.after, entry.place))
    return made


def _relation(whole: Mapping[str, Any], file: str) -> list[Fact]:
    templates = whole.get("prompt_templates")
    if not isinstance(templates, list) or not templates or "{}" not in str(templates[0]):
        raise ValueError(f"{file}: prompt_templates: give a list of templates with {{}}")
    before, _, after = str(templates[0]).partition("{}")
    made: list[Fact] = []
    for n, it in enumerate(whole["samples"]):
        fact = replace(
            _placed(before, str(it["subject"]), after),
            attribute=_first(it.get("object")),
            relation=whole.get("name"),
        )
        made.append(_corrupted(fact, it, before, after, f"{file}, sample {n}"))
    return made


def _corrupted(
    fact: Fact, record: Mapping[str, Any], before: str, after: str, place: str
) -> Fact:
    """The fact with what its record says corrupts it: ``corrupted`` is the other prompt, or an
    object with its ``prompt`` or its ``subject``, and maybe its ``answer``, which is the foil."""

    def said(of: Mapping[str, Any], name: str, shown: str) -> str | None:
        value = of.get(name)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise ValueError(f"{place}: {shown}: give a text, or leave it out")
        return value

    foil, given = said(record, "foil", "foil"), record.get("corrupted")
    if not isinstance(given, Mapping):
        return replace(fact, corrupted=said(record, "corrupted", "corrupted"), foil=foil)
    answer = said(given, "answer", "corrupted.answer")
    if None not in (foil, answer) and foil != answer:
        raise ValueError(f"{place}: foil and corrupted.answer contradict")
    prompt = said(given, "prompt", "corrupted.prompt")
    if prompt is None:
        subject = said(given, "subject", "corrupted.subject")
        if subject is None:
            raise ValueError(f"{place}: corrupted.subject: give another subject, or a prompt")
        prompt = f"{before}{subject}{after}"
    return replace(fact, corrupted=prompt, foil=foil or answer)


class _Entry:
    """One record of any of the known schemas."""

    def __init__(self, value: Any, place: str) -> None:
        self.place = place
        if not isinstance(value, Mapping):
            raise ValueError(f"{place}: is no object with prompt and subject")
        self.value = value
        ids = (value.get(name) for name in ("known_id", "case_id", "id"))
        found = next((it for it in ids if it is not None), None)
        self.id = None if found is None else str(found)
        full = value.get("requested_rewrite")
        self.is_zsre = full is None and value.get("prompt") is None and value.get("src") is not None
        # Where another field says what is true, it is no question whose answer is taught.
        said = ("target_new", "attribute", "target_true", "ground_truth")
        others = full is not None or any(value.get(name) is not None for name in said)
        is_qaedit = value.get("target") is not None and not others
        #: One answer is asked for, and not which of two is the likelier.
        self.asks_one = self.is_zsre or is_qaedit
        if full is not None and not isinstance(full, Mapping):
            raise ValueError(
                f"{place}: requested_rewrite: is a list, as in MQuAKE: read it by read_mquake"
            )
        if full is not None:
            self.subject = self._text(full, "subject")
            self.before, self.after = self._parts(self._text(full, "prompt"))
            self.new = _first((full.get("target_new") or {}).get("str"))
            self.true = _first((full.get("target_true") or {}).get("str"))
            self.relation = full.get("relation_id")
            names = ("paraphrase_prompts", "neighborhood_prompts", "")
        elif self.is_zsre:
            self.subject = self._text(value, "subject")
            self.before, self.after = self._parts(self._text(value, "src"))
            self.new, self.true = _first(value.get("alt")), _first(value.get("answers"))
            self.relation = None
            names = ("rephrase", "loc", "loc_ans")
        elif is_qaedit:
            self.subject = self._text(value, "subject")
            self.before, self.after = self._parts(self._text(value, "prompt"))
            self.new, self.true, self.relation = _first(value.get("target")), None, None
            names = ("rephrase", "", "")
        else:
            self.subject = self._text(value, "subject")
            self.before, self.after = self._parts(self._text(value, "prompt"))
            self.new = _object(value.get("target_new"))
            truths = {
                it
                for it in (
                    _first(value.get("attribute")),
                    _object(value.get("target_true")),
                    _first(value.get("ground_truth")),
                )
                if it is not None
            }
            if len(truths) > 1:
                raise ValueError(f"{place}: attribute, target_true and ground_truth contradict")
            self.true = truths.pop() if truths else None
            self.relation = value.get("relation_id") or value.get("relation")
            names = ("rephrase_prompt", "locality_prompt", "locality_ground_truth")
        self.paraphrases = _texts(value.get(names[0]))
        self.neighbours = _texts(value.get(names[1]))
        if self.is_zsre:
            mark = "nq question:"
            self.neighbours = tuple(it.removeprefix(mark).lstrip() for it in self.neighbours)
        answers = value.get(names[2]) if names[2] else None
        self.neighbour_answers = None if answers is None else _texts(answers)
        if is_qaedit:
            unrelated = value.get("locality") or ()
            self.neighbours = tuple(self._text(it, "loc") for it in unrelated)
            self.neighbour_answers = tuple(self._text(it, "loc_ans") for it in unrelated)
        self.generation_prompts = _texts(value.get("generation_prompts"))

    def _text(self, value: Mapping[str, Any], name: str) -> str:
        found = value.get(name)
        if not isinstance(found, str) or not found.strip():
            raise ValueError(f"{self.place}: {name}: give a text")
        return found

    def _parts(self, prompt: str) -> tuple[str, str]:
        mark = "{}" if "{}" in prompt else self.subject
        if mark not in prompt:
            raise ValueError(f"{self.place}: the subject {self.subject!r} is not in {prompt!r}")
        before, _, after = prompt.partition(mark)
        return before, after


def _rewrite(entry: _Entry) -> Rewrite:
    if entry.new is None:
        raise ValueError(f"{entry.place}: give the new object")
    return Rewrite(
        prompt=f"{entry.before}{{}}{entry.after}",
        subject=entry.subject,
        target=entry.new,
        true=entry.true,
        paraphrases=entry.paraphrases,
        neighbours=entry.neighbours,
        id=entry.id,
    )


def _record(entry: _Entry) -> Record:
    rewrite = _rewrite(entry)
    if rewrite.true is None and not entry.asks_one:
        raise ValueError(f"{entry.place}: give the true object, with which the new one is compared")
    asked = len(rewrite.neighbours)
    answers = entry.neighbour_answers or (() if entry.asks_one else (rewrite.true or "",))
    if len(answers) == 1:
        answers = answers * asked
    if asked and len(answers) != asked:
        raise ValueError(f"{entry.place}: {len(answers)} answers for {asked} neighbours")
    return Record(rewrite, answers if asked else (), entry.generation_prompts)


def _first(value: Any) -> str | None:
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    return value.strip() or None if isinstance(value, str) else None


def _object(value: Any) -> str | None:
    return _first(value.get("str")) if isinstance(value, Mapping) else _first(value)


def _texts(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(str(it) for it in value)
