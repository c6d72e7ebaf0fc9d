"""An edit that is measured and not yet part of a version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import errors, frames
from ..completions import Completions
from ..facts import Rewrite
from ..notebook import draft_html
from ..results import Probe, Step
from ..svg import number
from ..values import Edit, Status, Version
from ..wire import v1
from .asking import AsyncAsking, edit_spec
from .jobs import AsyncEditJob


class AsyncDraft:
    """A computed edit: look at it, then ``commit`` it, or leave it."""

    def __init__(
        self,
        model: AsyncAsking,
        fact: Rewrite,
        layer: int | None,
        settings: dict[str, Any],
        job: AsyncEditJob,
        outcome: Any,
        etag: str,
    ) -> None:
        self._model = model
        self._layer = layer
        self._settings = settings
        self._etag = etag
        #: What was asked, and the job that computed it.
        self.fact = fact
        self.job = job
        self.edit = Edit.of(outcome.edit)
        self.probes = tuple(Probe.of(it) for it in outcome.probes)
        self.steps = tuple(Step(it.loss, it.nll, it.probability, it.drift) for it in outcome.steps)

    @classmethod
    async def computed(
        cls,
        model: AsyncAsking,
        fact: Rewrite,
        layer: int | None,
        collect: bool,
        progress: bool | None,
        settings: dict[str, Any],
    ) -> AsyncDraft:
        """Computes an edit, and measures it."""
        asked = dict(settings)
        etag = ""
        if "on" not in asked:
            # What the branch was when the edit was computed: a commit is held against it.
            ref = next((it for it in await model.refs() if it.id == model.ref_id), None)
            if ref is not None:
                etag, asked["on"] = ref.etag, ref.version
        spec, options = edit_spec([fact], layer, asked)
        job: AsyncEditJob = await model._submit_edit(options, collect, edit=spec)
        await job.wait(progress=progress)
        return cls(model, fact, layer, settings, job, (await job.results())[0].edit, etag)

    @property
    def accepted(self) -> bool:
        """Whether it passed its gates."""
        return self.edit.state == "accepted"

    @property
    def gates(self) -> tuple[str, ...]:
        """The gates that it failed, in words."""
        return self.edit.failed_gates

    async def commit(self, ref: str | None = None, *, why: str = "") -> Version:
        """Makes a version of it, which a branch moves to: by default the one that it was
        computed on, if nobody moved that meanwhile.

        Raises:
            RefMoved: somebody did: ``rebase()`` computes it again on what it is now.
            EditRejected: it failed its gates; it is kept in the history all the same.
        """
        branch = ref or self._model.ref_id
        etag = self._etag if branch == self._model.ref_id else ""
        result = f"{self.job.name}/results/0"
        try:
            edit, version = await self._model.commit(result, ref_id=branch, etag=etag, why=why)
            if edit.state == "rejected":
                gates = "; ".join(self.gates)
                raise errors.EditRejected(
                    f"the edit is kept as rejected, and no branch takes it: {gates}",
                    reason="EDIT_REJECTED",
                )
        except errors.Unavailable:
            # The answer was lost, perhaps not the commit: the history says which.
            made = {it.digest for it in await self._model.edits() if it.job == self.job.id}
            versions = [it for it in await self._model.versions() if it.subject_edit in made]
            if not versions:
                raise
            version = versions[0]
        return version

    async def rebase(self, progress: bool | None = None) -> AsyncDraft:
        """The same edit, computed again on the version that the branch has now."""
        return await self.computed(
            self._model, self.fact, self._layer, False, progress, self._settings
        )

    async def try_on(self, prompts: str | Sequence[str], **settings: Any) -> Completions:
        """What the model says with the edit, beside what it says without it. The edit goes to a
        branch of one's own, ``scratch-NAME``; no other moves."""
        base = self.job.version
        told = await self._model._call("StatusService/GetStatus", v1.GetStatusRequest())
        user = Status.of(told.status).principal
        plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in user.lower())
        scratch = f"scratch-{plain.strip('-') or 'me'}"
        if any(it.id == scratch for it in await self._model.refs()):
            await self._model.ref(scratch).move(base, why="to try an edit")
        else:
            await self._model.branch(scratch, base, why="to try edits")
        version = await self.commit(scratch, why="to try it")
        return await self._model.complete(prompts, on=[base, version], **settings)

    def to_pandas(self) -> Any:
        """A DataFrame: a row a prompt, with its probabilities before and after."""
        return frames.of_probes(self.probes)

    def __repr__(self) -> str:
        state = "accepted" if self.accepted else f"rejected: {'; '.join(self.gates)}"
        layers = ", ".join(str(layer) for layer in self.edit.layers)
        probes = [
            f"  {it.kind}: p(new) {number(it.new_before)} -> {number(it.new_after)}"
            + (
                ""
                if it.true_before is None or it.true_after is None
                else f", p(true) {number(it.true_before)} -> {number(it.true_after)}"
            )
            + f"  {it.prompt!r}"
            for it in self.probes
        ]
        head = f"<{type(self).__name__} {self.edit}; layer {layers}; {state}>"
        return "\n".join([head, *probes])

    def _repr_html_(self) -> str:
        return draft_html(self.edit, self.probes, self.steps)
