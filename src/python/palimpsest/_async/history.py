"""The versions of a model: its edits and refs, what differs, and the way back."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from .. import errors
from ..values import Diff, Edit, MatrixDifference, ModelInfo, Ref, Version, last
from ..wire import v1
from . import program
from .audit import AsyncAudit
from .jobs import handle
from .transport import AsyncTransport

ExportFormat: TypeAlias = Literal["safetensors", "peft", "gguf-lora", "factors"]


class AsyncHistory:
    """What a model is, was, and how it came to be that."""

    def __init__(self, transport: AsyncTransport, name: str, ref: str) -> None:
        self._transport = transport
        self.id = last(name)
        #: The ref or version that jobs run on where they name no other.
        self.ref_id = ref

    @property
    def name(self) -> str:
        """Its resource's name, ``models/{id}``."""
        return f"models/{self.id}"

    def at(self, ref: str | Version) -> Any:
        """The same model at another ref or version."""
        return type(self)(self._transport, self.name, self._word(ref))

    def version_name(self, version: str | Version) -> str:
        """A version's resource name, by its digest or the beginning of it, ``v3``, ``main~1``."""
        word = self._word(version)
        return word if word.startswith("models/") else f"{self.name}/versions/{word}"

    @staticmethod
    def _word(version: str | Version) -> str:
        return version.digest if isinstance(version, Version) else version

    async def info(self) -> ModelInfo:
        """Its family and shape."""
        found = await self._call("ModelService/GetModel", v1.GetModelRequest(name=self.name))
        return ModelInfo.of(found.model)

    async def versions(self) -> list[Version]:
        """Its versions, the newest first; the base is the last."""
        request = v1.ListVersionsRequest(parent=self.name)
        pages = self._transport.pages("VersionService/ListVersions", request, "versions")
        return [Version.of(it) async for it in pages]

    async def version(self, version: str | Version = "") -> Version:
        """A version, with its edits and matrices; by default the one of this ref."""
        name = self.version_name(version or self.ref_id)
        found = await self._call("VersionService/GetVersion", v1.GetVersionRequest(name=name))
        return await self._whole(found.version)

    async def _whole(self, message: Any) -> Version:
        """A version with all its edits, which are left out where they are too many for an
        answer."""
        if len(message.edits) < message.edit_count:
            request = v1.ListEditsRequest(parent=message.name, page_size=1000)
            pages = self._transport.pages("VersionService/ListEdits", request, "edits")
            digests = [last(it.name) async for it in pages]
            del message.edits[:]
            message.edits.extend(digests)
        return Version.of(message)

    async def edits(self, version: str | Version | None = None) -> list[Edit]:
        """Its edits, rejected ones too, the newest first; or those of a version, in the order in
        which they are added."""
        parent = self.name if version is None else self.version_name(version)
        request = v1.ListEditsRequest(parent=parent, page_size=1000)
        pages = self._transport.pages("VersionService/ListEdits", request, "edits")
        return [Edit.of(it) async for it in pages]

    async def get_edit(self, digest: str) -> Edit:
        """An edit by its digest, or the beginning of it."""
        request = v1.GetEditRequest(name=self._edit_name(digest))
        return Edit.of((await self._call("VersionService/GetEdit", request)).edit)

    async def revert(
        self,
        edit: str | Edit,
        *,
        fact: str | Sequence[str] = (),
        ref: str | None = None,
        why: str = "",
    ) -> Version:
        """Takes an edit out of a branch, wherever it stands. The version's warnings name the edits
        that were computed on top of it.

        Args:
            fact: a fact, or several, of an edit of many, each by its case id, its subject or as
                ``#7``: only these are taken out. A job computes the edit again without them, from
                the keys and residuals that it keeps, and is waited for.

        Raises:
            JobFailed: the branch moved meanwhile, or the facts could not be taken out.
            EditRejected: without them it fails its gates.
        """
        if fact:
            facts = [fact] if isinstance(fact, str) else list(fact)
            without = v1.MassEditSpec.Without(edit=self._edit_name(edit), facts=facts)
            spec = v1.MassEditSpec(without=without, ref_id=ref or self.ref_id, why=why)
            job = await self._submit({"on": ""}, mass_edit=spec)
            await job.wait()
            [(made, version)] = await job.edits()
            if not version:
                gates = "; ".join(made.failed_gates)
                raise errors.EditRejected(
                    f"the edit is kept as rejected, and no branch takes it: {gates}",
                    reason="EDIT_REJECTED",
                )
            return await self.version(version)
        request = v1.RevertEditRequest(
            name=self._edit_name(edit), ref_id=ref or self.ref_id, why=why
        )
        made = await self._call("VersionService/RevertEdit", request)
        return await self._whole(made.version)

    async def cherry_pick(
        self, edit: str | Edit, *, ref: str | None = None, why: str = ""
    ) -> Version:
        """Adds an edit that was made elsewhere at the end of a branch."""
        request = v1.CherryPickEditRequest(
            name=self._edit_name(edit), ref_id=ref or self.ref_id, why=why
        )
        made = await self._call("VersionService/CherryPickEdit", request)
        return await self._whole(made.version)

    async def refs(self) -> list[Ref]:
        """Its refs, by name."""
        request = v1.ListRefsRequest(parent=self.name)
        pages = self._transport.pages("VersionService/ListRefs", request, "refs")
        return [Ref.of(it) async for it in pages]

    def ref(self, ref: str | None = None) -> AsyncRef:
        """A ref, to read or to move it; nothing is asked yet."""
        return AsyncRef(self, ref or self.ref_id)

    async def branch(self, ref: str, at: str | Version | None = None, *, why: str = "") -> Ref:
        """Makes a branch; by default where this ref is."""
        return await self._new_ref(ref, at, 1, why)

    async def tag(self, ref: str, at: str | Version | None = None, *, why: str = "") -> Ref:
        """Makes a tag, which stays where it is."""
        return await self._new_ref(ref, at, 2, why)

    async def _new_ref(self, ref: str, at: str | Version | None, kind: int, why: str) -> Ref:
        made = v1.Ref(version=self.version_name(at or self.ref_id), kind=kind, why=why)
        request = v1.CreateRefRequest(parent=self.name, ref_id=ref, ref=made)
        return Ref.of((await self._call("VersionService/CreateRef", request)).ref)

    async def diff(self, left: str | Version, right: str | Version) -> Diff:
        """What differs between two versions: matrices, by how much, and facts."""
        request = v1.CompareVersionsRequest(
            left=self.version_name(left), right=self.version_name(right)
        )
        page = await self._call("VersionService/CompareVersions", request)
        first, ours, theirs = page, list(page.left_edits), list(page.right_edits)
        while page.next_page_token:
            request.page_token = page.next_page_token
            page = await self._call("VersionService/CompareVersions", request)
            ours += page.left_edits
            theirs += page.right_edits
        return Diff(
            Version.of(first.left),
            Version.of(first.right),
            tuple(
                MatrixDifference(it.tensor_name, it.layer, it.difference_norm, it.base_norm)
                for it in first.matrices
            ),
            tuple(Edit.of(it) for it in ours),
            tuple(Edit.of(it) for it in theirs),
        )

    async def export(
        self,
        out: str | os.PathLike[str],
        format: ExportFormat = "safetensors",  # noqa: A002
        *,
        version: str | Version | None = None,
    ) -> Path:
        """Writes a version, by default that of this ref, as files that other programs load: the
        whole model (``safetensors``), a LoRA adapter (``peft``, ``gguf-lora``), or the ``factors``
        alone. The program does it, which must be here.

        Raises:
            NoServer: the program is not here.
            Error: it cannot be written; ``out`` must not be there yet.
        """
        place = Path(out).absolute()
        asked = self._word(version or self.ref_id)
        arguments = ["export", str(place), "--format", format]
        arguments += ["--ref", last(asked), "--model", self.name]
        await program.run(self._transport.settings, arguments, "export")
        return place

    async def commit(self, edit: Any, **fields: Any) -> tuple[Edit, Version]:
        """Makes a version of an edit's result; see ``Draft.commit``."""
        request = v1.CreateEditRequest(parent=self.name, **fields)
        if isinstance(edit, str):
            request.result = edit
        else:
            request.edit.CopyFrom(edit)
        made = await self._call("VersionService/CreateEdit", request)
        return Edit.of(made.edit), await self._whole(made.version)

    def _edit_name(self, edit: str | Edit) -> str:
        if isinstance(edit, Edit):
            return edit.name
        return edit if edit.startswith("models/") else f"{self.name}/edits/{edit}"

    async def _call(self, method: str, request: Any) -> Any:
        return await self._transport.call(method, request)

    async def _create(
        self, options: dict[str, Any], validate_only: bool = False, **spec: Any
    ) -> Any:
        """Creates a job on this ref, or on the version that the options name."""
        rest = dict(options)
        on = rest.pop("on", self.ref_id)
        known = ("display_name", "priority", "no_cache", "owner")
        unknown = [name for name in rest if name not in known]
        if unknown:
            raise TypeError(f"{', '.join(unknown)}: no such option; {', '.join(known)} and on are")
        # Where none is named, the server takes that of the branch which an edit names, or main's.
        version = "" if on in ("", "main") else self.version_name(on)
        job = v1.Job(model=self.name, version=version, **rest, **spec)
        request = v1.CreateJobRequest(
            job=job, request_id=str(uuid.uuid4()), validate_only=validate_only
        )
        return (await self._call("JobService/CreateJob", request)).job

    async def _submit(self, options: dict[str, Any], **spec: Any) -> Any:
        return handle(self._transport, await self._create(options, **spec))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} at {self.ref_id}>"


class AsyncRef:
    """A ref by its name: ``model.ref("main")``."""

    def __init__(self, model: AsyncHistory, ref: str) -> None:
        self._model = model
        self.id = ref

    @property
    def name(self) -> str:
        """Its resource's name."""
        return f"{self._model.name}/refs/{self.id}"

    async def get(self) -> Ref:
        """Where it points, since when and by whom."""
        found = await self._model._call("VersionService/GetRef", v1.GetRefRequest(name=self.name))
        return Ref.of(found.ref)

    async def move(
        self, to: str | Version, *, why: str = "", etag: str | None = None, force: bool = False
    ) -> Ref:
        """Moves it to a version, back or forth.

        Args:
            etag: what ``get`` gave, for a movement that nobody else's may come between; by
                default what it is now.
            force: move a tag all the same.

        Raises:
            RefMoved: it has another etag.
        """
        known = (await self.get()).etag if etag is None else etag
        ref = v1.Ref(name=self.name, version=self._model.version_name(to), etag=known, why=why)
        request = v1.UpdateRefRequest(ref=ref, force=force)
        return Ref.of((await self._model._call("VersionService/UpdateRef", request)).ref)

    async def rollback(self, to: str | Version, *, why: str = "") -> Ref:
        """Takes it back to a version. Nothing is deleted: it can go forth again."""
        return await self.move(to, why=why)

    async def history(self) -> Sequence[Any]:
        """Its movements, from the audit log, the oldest first: who, when and why."""
        return await AsyncAudit(self._model._transport).entries(resource=self.name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"
