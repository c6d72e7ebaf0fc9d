# Made from _async/asking.py by unasync.py: change that one.
"""What is asked of a model before it is edited, and what an edit is asked with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from .. import blake3, corpus, errors, facts, wire
from ..completions import Completions
from ..values import Statistics, Version
from ..wire import v1
from .history import History
from .jobs import CompletionJob, StatisticsJob

Dtype: TypeAlias = Literal["f32", "bf16", "f16"]


class Asking(History):
    """A model that is asked: completions, key statistics, edits."""

    def complete(
        self,
        prompts: str | Sequence[str],
        *,
        on: Sequence[str | Version] | str | Version | None = None,
        max_tokens: int = 32,
        temperature: float = 0.0,
        top_k: int = 0,
        seed: int = 0,
        dtype: Dtype | None = None,
        progress: bool | None = None,
        **options: Any,
    ) -> Completions:
        """Completes prompts, on this ref or on several versions: a table, a column a version."""
        asked = [prompts] if isinstance(prompts, str) else list(prompts)
        versions: list[str | Version] = (
            [self.ref_id] if on is None else [on] if isinstance(on, (str, Version)) else list(on)
        )
        spec = v1.GenerateSpec(
            prompts=asked,
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            seed=seed,
            dtype=wire.number("Dtype", dtype),
        )
        jobs: list[CompletionJob] = []
        for version in versions:
            jobs.append(self._submit({**options, "on": version}, generate=spec))
        columns = []
        for job in jobs:
            job.wait(progress=progress)
            columns.append(tuple(job.completions()))
        names = tuple(str(version) for version in versions)
        return Completions(tuple(asked), names, tuple(columns))

    def collect_statistics(
        self,
        layers: Sequence[int],
        *,
        self_sample: int | None = None,
        texts: Sequence[str] | None = None,
        length: int = 0,
        seed: int = 1,
        source: str = "",
        dtype: Dtype | None = None,
        progress: bool | None = None,
        **options: Any,
    ) -> list[Statistics]:
        """Collects the key statistics of layers, which edits need: over tokens drawn from the
        model itself (``self_sample``: some ten a channel of the edited matrix), or over texts."""
        if (self_sample is None) == (texts is None):
            raise ValueError("give self_sample, a number of tokens, or texts")
        spec = v1.StatsSpec(
            layers=layers, length=length, dtype=wire.number("Dtype", dtype), source=source
        )
        if self_sample is not None:
            spec.source = source or f"{self_sample} tokens drawn from the model, seed {seed}"
            for drawn, first in corpus.draws(self_sample, seed):
                spec.pieces.add(self_sample=drawn, seed=first)
        elif texts is not None:
            spec.source = source or f"{len(texts)} texts"
            whole = corpus.lines(texts)
            spec.corpus.digest = self._transport.upload(whole)
            spec.corpus.size = len(whole)
            for start, size in corpus.ranges(whole):
                part = whole[start : start + size]
                spec.pieces.add().range.MergeFrom(
                    v1.StatsUnit.Range(offset=start, length=size, digest=blake3.digest(part))
                )
        job: StatisticsJob = self._submit(options, stats=spec)
        job.wait(progress=progress)
        made = self._transport.call(
            "StatisticsService/CreateStatistics", v1.CreateStatisticsRequest(job=job.name)
        )
        return [Statistics.of(it) for it in made.statistics]

    def statistics(self) -> list[Statistics]:
        """The key statistics of the model, by layer, the newest first."""
        request = v1.ListStatisticsRequest(parent=self.name)
        pages = self._transport.pages(
            "StatisticsService/ListStatistics", request, "statistics"
        )
        return [Statistics.of(it) for it in pages]

    def _submit_edit(self, options: dict[str, Any], collect: bool, **spec: Any) -> Any:
        """Creates a job; collects the key statistics that it lacks, where that is wanted."""
        self._store_gate_inputs(options, **spec)
        before: tuple[int | None, int | None] | None = None
        while True:
            try:
                return self._submit(options, **spec)
            except errors.StatisticsMissing as missing:
                lacking = (missing.layer, missing.tokens)
                if not collect or missing.layer is None or lacking == before:
                    raise
                before = lacking
            self.collect_statistics([lacking[0] or 0], self_sample=lacking[1], length=256)

    def _store_gate_inputs(self, options: dict[str, Any], **spec: Any) -> None:
        """Stores the texts and questions that edits are judged by, and names them in the one
        spec."""
        (asked,) = spec.values()
        texts = options.pop("gate_texts", None)
        if texts is not None:
            whole = corpus.lines(texts)
            asked.gate_texts.asked.digest = self._transport.upload(whole)
            asked.gate_texts.asked.size = len(whole)
        questions: Sequence[facts.Choice] | None = options.pop("gate_questions", None)
        if questions is not None:
            records = [facts.Record(choice=it).message() for it in questions]
            whole = v1.EvalRecordList(records=records).SerializeToString()
            asked.gate_questions.digest = self._transport.upload(whole)
            asked.gate_questions.size = len(whole)


#: Settings that all edits have.
_COMMON = ("method", "parameters", "contexts", "seed", "gates", "dtype", "layer_choice")


def edit_settings(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What of the settings belongs to edits, as the contract has it, and the rest: options."""
    rest = dict(settings)
    made: dict[str, Any] = {name: rest.pop(name) for name in _COMMON if name in rest}
    if "dtype" in made:
        made["dtype"] = wire.number("Dtype", made["dtype"])
    if "parameters" in made:
        made["parameters"] = [
            v1.NamedNumber(key=key, value=value) for key, value in made["parameters"].items()
        ]
    if "gates" in made:
        made["gates"] = v1.EditGates(**made["gates"])
    return made, rest


def edit_spec(
    tasks: Sequence[facts.Rewrite], layer: int | None, settings: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    common, options = edit_settings(settings)
    name = options.pop("statistics_name", "")
    spec = v1.EditSpec(
        tasks=[it.task() for it in tasks], layer=layer, statistics_name=name, **common
    )
    return spec, options
