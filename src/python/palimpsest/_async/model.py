"""A model and one of its refs: what jobs are asked of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from .. import blake3, corpus, errors, facts, wire
from ..completions import Completions
from ..facts import EvalSet, FactsLike
from ..results import Checked, Kind
from ..values import Edit, Plan, Statistics, Version
from ..wire import v1
from .draft import AsyncDraft
from .history import AsyncHistory
from .jobs import (
    SHOWN,
    AsyncCompletionJob,
    AsyncEditJob,
    AsyncEvaluation,
    AsyncMassEditJob,
    AsyncStatisticsJob,
    AsyncSweep,
)

if TYPE_CHECKING:
    from .client import AsyncClient

Dtype: TypeAlias = Literal["f32", "bf16", "f16"]
Engine: TypeAlias = Literal["exact", "plain"]
Compat: TypeAlias = Literal["none", "paper-code"]
Method: TypeAlias = Literal["r-rome", "rome", "ft-l"]
MassMethod: TypeAlias = Literal["memit", "alphaedit", "emmet", "encore"]

#: Bytes of facts or records that travel in a request; more of them go as an object.
INLINE = 1 << 20


class AsyncModel(AsyncHistory):
    """A model by its name, at a ref or version: ``client.model("gpt2", ref="main")``."""

    def __init__(self, client: AsyncClient, name: str, ref: str) -> None:
        super().__init__(client, name, ref)

    async def trace(
        self,
        facts_: FactsLike,
        *,
        subject: str | None = None,
        kinds: Sequence[Kind] = ("hidden", "mlp", "attn"),
        noise: str | float = "s3",
        samples: int = 10,
        seed: int = 1,
        window: int = 10,
        engine: Engine | None = None,
        dtype: Dtype | None = None,
        compat: Compat | None = None,
        noise_corpus: Sequence[str] | None = None,
        wait: bool = True,
        progress: bool | None = None,
        **options: Any,
    ) -> AsyncSweep:
        """Traces facts: where is it that the model keeps what it answers?

        Args:
            facts_: facts, dicts, a DataFrame, a file of facts; or a prompt, with its ``subject``.
            noise: a standard deviation, or a rule: ``s3``, ``u0.5``, ``m``, ``t5``, with
                ``replace:`` before it.
            noise_corpus: texts, which the rules ``m`` and ``t`` need.
            wait: whether to wait until it has ended.
            options: ``on`` (a version), ``display_name``, ``priority``, ``no_cache``, ``owner``.

        Raises:
            InvalidArgument: a setting is wrong; the error names it.
            JobFailed: it ended without all its results.
        """
        if subject is not None:
            if not isinstance(facts_, str):
                raise TypeError("a subject goes with one prompt: facts have theirs")
            listed = facts.Facts([facts.fact_of(facts_, subject)])
        else:
            listed = facts.Facts.of(facts_)
        spec = v1.TraceSpec(
            kinds=[wire.number("Kind", kind) for kind in kinds],
            noise=str(noise),
            samples=samples,
            seed=seed,
            window=window,
            engine=wire.number("Engine", engine),
            dtype=wire.number("Dtype", dtype),
            compat=wire.number("Compat", compat),
        )
        messages = [it.message() for it in listed]
        if sum(it.ByteSize() + 4 for it in messages) > INLINE:
            whole = v1.FactList(facts=messages).SerializeToString()
            spec.facts_object = await self._client._transport.upload(whole)
        else:
            spec.facts.extend(messages)
        if noise_corpus is not None:
            text = corpus.lines(noise_corpus)
            spec.noise_corpus.digest = await self._client._transport.upload(text)
            spec.noise_corpus.size = len(text)
        sweep: AsyncSweep = await self._submit(options, trace=spec)
        if wait:
            await sweep.wait(progress=progress)
            if len(listed) <= SHOWN:
                await sweep.results()
        return sweep

    async def complete(
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
        jobs: list[AsyncCompletionJob] = []
        for version in versions:
            jobs.append(await self._submit({**options, "on": version}, generate=spec))
        columns = []
        for job in jobs:
            await job.wait(progress=progress)
            columns.append(tuple(await job.completions()))
        names = tuple(str(version) for version in versions)
        return Completions(tuple(asked), names, tuple(columns))

    async def collect_statistics(
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
            spec.corpus.digest = await self._client._transport.upload(whole)
            spec.corpus.size = len(whole)
            for start, size in corpus.ranges(whole):
                part = whole[start : start + size]
                spec.pieces.add().range.MergeFrom(
                    v1.StatsUnit.Range(offset=start, length=size, digest=blake3.digest(part))
                )
        job: AsyncStatisticsJob = await self._submit(options, stats=spec)
        await job.wait(progress=progress)
        made = await self._client._transport.call(
            "StatisticsService/CreateStatistics", v1.CreateStatisticsRequest(job=job.name)
        )
        return [Statistics.of(it) for it in made.statistics]

    async def statistics(self) -> list[Statistics]:
        """The key statistics of the model, by layer, the newest first."""
        request = v1.ListStatisticsRequest(parent=self.name)
        pages = self._client._transport.pages(
            "StatisticsService/ListStatistics", request, "statistics"
        )
        return [Statistics.of(it) async for it in pages]

    async def edit(
        self,
        prompt: str,
        *,
        subject: str,
        target: str,
        true: str | None = None,
        paraphrases: Sequence[str] = (),
        neighbours: Sequence[str] = (),
        layer: int | None = None,
        collect: bool = False,
        progress: bool | None = None,
        **settings: Any,
    ) -> AsyncDraft:
        """Computes an edit that rewrites a fact, and measures it. No version has it until it is
        committed.

        Args:
            prompt: the sentence up to its object, with ``{}`` for the subject.
            target: what the model is to say; ``true``: what is so, where it is known.
            neighbours: prompts about other subjects, which should stay as they are.
            layer: where it goes (``sweep.locate().layer``); by default the family's.
            collect: whether missing key statistics are collected first.
            settings: ``method``, ``parameters``, ``contexts``, ``seed``, ``gates``, ``dtype``,
                ``layer_choice``, ``statistics_name``, and the options of ``trace``.

        Raises:
            StatisticsMissing: the layer has no key statistics: ``collect_statistics``.
            JobFailed: it could not be computed.
        """
        fact = facts.Rewrite(prompt, subject, target, true, tuple(paraphrases), tuple(neighbours))
        return await self._draft(fact, layer, collect, progress, settings)

    async def _draft(
        self,
        fact: facts.Rewrite,
        layer: int | None,
        collect: bool,
        progress: bool | None,
        settings: dict[str, Any],
    ) -> AsyncDraft:
        asked = dict(settings)
        etag = ""
        if "on" not in asked:
            # What the branch was when the edit was computed: a commit is held against it.
            ref = next((it for it in await self.refs() if it.id == self.ref_id), None)
            if ref is not None:
                etag, asked["on"] = ref.etag, ref.version
        spec, options = _edit_spec([fact], layer, asked)
        job: AsyncEditJob = await self._submit_edit(options, collect, edit=spec)
        await job.wait(progress=progress)
        return AsyncDraft(self, fact, layer, settings, job, (await job.results())[0].edit, etag)

    async def edit_sequence(
        self,
        facts_: Any,
        *,
        ref: str | None = None,
        layer: int | None = None,
        why: str = "",
        rebase: bool = False,
        keep_going: bool = False,
        collect: bool = False,
        wait: bool = True,
        progress: bool | None = None,
        **settings: Any,
    ) -> AsyncEditJob:
        """Writes facts one after the other, each on the version that the one before made; the
        branch (by default this model's ref) moves with every one that passes its gates."""
        spec, options = _edit_spec(facts.rewrites_of(facts_), layer, settings)
        spec.ref_id, spec.why = ref or self.ref_id, why
        spec.rebase, spec.keep_going = rebase, keep_going
        options.setdefault("on", "")
        job: AsyncEditJob = await self._submit_edit(options, collect, edit=spec)
        if wait:
            await job.wait(progress=progress)
        return job

    async def edit_many(
        self,
        facts_: Any,
        *,
        method: MassMethod = "memit",
        layers: Sequence[int] = (),
        ref: str | None = None,
        batch: int | None = None,
        why: str = "",
        collect: bool = False,
        wait: bool = True,
        progress: bool | None = None,
        **settings: Any,
    ) -> AsyncMassEditJob:
        """Writes many facts at once: an edit, a version and a movement of the branch for each
        batch; all facts are one where none is given. ``plan_many`` says before what that is, and
        ``check_many`` what is to be expected of it.

        Args:
            settings: those of ``edit`` except ``layer``; ``keep_going`` leaves out a fact that
                cannot be written, ``statistics_names`` says which key statistics are used.

        Raises:
            StatisticsMissing: a layer has no key statistics, and ``collect`` is not set.
        """
        spec, options = self._mass_spec(facts_, method, layers, ref, batch, why, settings)
        options.setdefault("on", "")
        job: AsyncMassEditJob = await self._submit_edit(options, collect, mass_edit=spec)
        if wait:
            await job.wait(progress=progress)
        return job

    async def check_many(
        self,
        facts_: Any,
        *,
        method: MassMethod = "memit",
        layers: Sequence[int] = (),
        ref: str | None = None,
        batch: int | None = None,
        collect: bool = False,
        progress: bool | None = None,
        **settings: Any,
    ) -> list[Checked]:
        """The pre-flight of ``edit_many``: reads the keys of all facts and says what is to be
        expected of each batch. No target is computed, and no version is made."""
        asked = {**settings, "check_only": True}
        job: AsyncMassEditJob = await self.edit_many(
            facts_,
            method=method,
            layers=layers,
            ref=ref,
            batch=batch,
            collect=collect,
            progress=progress,
            **asked,
        )
        return await job.checks()

    async def plan_many(
        self,
        facts_: Any,
        *,
        method: MassMethod = "memit",
        layers: Sequence[int] = (),
        ref: str | None = None,
        batch: int | None = None,
        **settings: Any,
    ) -> Plan:
        """What ``edit_many`` would do, with everything checked and nothing accepted."""
        spec, options = self._mass_spec(facts_, method, layers, ref, batch, "", settings)
        options.setdefault("on", "")
        job = await self._create(options, validate_only=True, mass_edit=spec)
        return Plan.of(job.mass_edit)

    def _mass_spec(
        self,
        facts_: Any,
        method: str,
        layers: Sequence[int],
        ref: str | None,
        batch: int | None,
        why: str,
        settings: dict[str, Any],
    ) -> tuple[Any, dict[str, Any]]:
        common, options = _common(settings)
        for name in ("keep_going", "check_only", "statistics_names"):
            if name in options:
                common[name] = options.pop(name)
        spec = v1.MassEditSpec(
            tasks=[it.task() for it in facts.rewrites_of(facts_)],
            method=method,
            layers=layers,
            ref_id=ref or self.ref_id,
            batch=batch,
            why=why,
            **common,
        )
        return spec, options

    async def evaluate(
        self,
        records: Any,
        *,
        against: str | Version | None = None,
        set: EvalSet | None = None,  # noqa: A002
        seed: int = 0,
        dtype: Dtype | None = None,
        edit_each: dict[str, Any] | None = None,
        wait: bool = True,
        progress: bool | None = None,
        **options: Any,
    ) -> AsyncEvaluation:
        """Measures what a version answers to the records of CounterFact or zsRE, or how well it
        foretells texts; beside another version, by default the unedited model.

        Args:
            records: a data set's file, dicts, ``Record``s, or plain texts.
            edit_each: settings of ``edit`` (``layer``, ``method``, ...) to edit each record on its
                own, measure it, and discard the edit.
        """
        found, listed = facts.records_of(records)
        spec = v1.EvalSpec(
            set=wire.number("EvalSet", set or found), seed=seed, dtype=wire.number("Dtype", dtype)
        )
        messages = [it.message() for it in listed]
        if sum(it.ByteSize() + 4 for it in messages) > INLINE:
            whole = v1.EvalRecordList(records=messages).SerializeToString()
            spec.records_object = await self._client._transport.upload(whole)
        else:
            spec.records.extend(messages)
        if against is not None:
            spec.against = self.version_name(against)
        if edit_each is not None:
            asked = dict(edit_each)
            layer = asked.pop("layer", None)
            each, more = _edit_spec([], layer, asked)
            options = {**more, **options}
            spec.edit_each.CopyFrom(each)
        job: AsyncEvaluation = await self._submit(options, eval=spec)
        if wait:
            await job.wait(progress=progress)
        return job

    async def _submit_edit(self, options: dict[str, Any], collect: bool, **spec: Any) -> Any:
        """Creates a job; collects the key statistics that it lacks, where that is wanted."""
        before: tuple[int | None, int | None] | None = None
        while True:
            try:
                return await self._submit(options, **spec)
            except errors.StatisticsMissing as missing:
                lacking = (missing.layer, missing.tokens)
                if not collect or missing.layer is None or lacking == before:
                    raise
                before = lacking
            await self.collect_statistics([lacking[0] or 0], self_sample=lacking[1], length=256)

    async def commit(self, edit: Any, **fields: Any) -> tuple[Edit, Version]:
        """Makes a version of an edit's result; see ``Draft.commit``."""
        request = v1.CreateEditRequest(parent=self.name, **fields)
        if isinstance(edit, str):
            request.result = edit
        else:
            request.edit.CopyFrom(edit)
        made = await self._client._transport.call("VersionService/CreateEdit", request)
        return Edit.of(made.edit), Version.of(made.version)


#: Settings that all edits have.
_COMMON = ("method", "parameters", "contexts", "seed", "gates", "dtype", "layer_choice")


def _common(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
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


def _edit_spec(
    tasks: Sequence[facts.Rewrite], layer: int | None, settings: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    common, options = _common(settings)
    name = options.pop("statistics_name", "")
    spec = v1.EditSpec(
        tasks=[it.task() for it in tasks], layer=layer, statistics_name=name, **common
    )
    return spec, options
