"""Reads the results of a finished job as a stranger would: with nothing but an address.

    read_results.py HOST:PORT

The contract comes from the server's own reflection service; no file of the project is used. Prints
one JSON object a line: first {"jobs": [...]}, then a result each, in the form of
`palimpsest job results --json`, of the newest job that has succeeded.
"""

import json
import sys

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

DEADLINE = 60  # seconds a call may take


class Service:
    """A service of the server, its unary methods as methods."""

    def __init__(self, channel, pool, name):
        self.channel = channel
        self.descriptor = pool.FindServiceByName(name)

    def __getattr__(self, method):
        found = self.descriptor.methods_by_name[method]
        request = message_factory.GetMessageClass(found.input_type)
        response = message_factory.GetMessageClass(found.output_type)
        call = self.channel.unary_unary(
            f"/{self.descriptor.full_name}/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        return lambda **fields: call(request(**fields), timeout=DEADLINE)


def pages(method, field, **request):
    """Everything of a list, page after page."""
    token = ""
    while True:
        page = method(page_size=2, page_token=token, **request)
        yield from getattr(page, field)
        token = page.next_page_token
        if not token:
            return


def name_of(message, field, prefix):
    """The value of an enum as a word: KIND_MLP is mlp."""
    values = message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number
    return values[getattr(message, field)].name.removeprefix(prefix).lower()


def optional(message, field):
    return getattr(message, field) if message.HasField(field) else None


def result(unit, fact, kind):
    out = {
        "unit": unit.unit,
        "id": optional(fact, "id"),
        "relation": optional(fact, "relation"),
        "prompt": fact.prompt,
        "subject": fact.subject,
    }
    if unit.WhichOneof("outcome") == "failure":
        failure = unit.failure
        return out | {
            "kind": kind,
            "error": {
                "class": name_of(failure, "failure_class", "FAILURE_CLASS_"),
                "message": failure.message,
            },
        }
    grid = unit.grid
    return out | {
        "kind": name_of(grid, "kind", "KIND_"),
        "token_ids": list(grid.token_ids),
        "tokens": list(grid.tokens),
        "subject_range": [grid.subject_begin, grid.subject_end],
        "answer_id": grid.answer_id,
        "answer": grid.answer,
        "correct_prediction": grid.correct_prediction,
        "high": grid.high,
        "low": grid.low if grid.correct_prediction else None,
        "scores": rows_of(grid.scores, grid.layers),
        "window": grid.window,
        "samples": grid.samples,
        "noise": grid.noise,
        "noise_scale": grid.noise_scale,
        "noise_corpus": grid.noise_corpus or None,
        "seed": grid.seed,
        "compat": name_of(grid, "compat", "COMPAT_").replace("_", "-"),
        # What is not said is denoising.
        "direction": name_of(grid, "direction", "DIRECTION_").replace("unspecified", "denoising"),
        "receivers": receivers(grid),
        "frozen_mlps": grid.paths.frozen_mlps if grid.HasField("paths") else None,
        "corrupted": corrupted(grid),
        "foil_id": grid.foil.id if grid.HasField("foil") else None,
        "foil": grid.foil.text if grid.HasField("foil") else None,
        "foil_ids": [grid.foil.id] if grid.HasField("foil") else None,
        "whole_answers": grid.whole_answers,
        "answer_ids": [grid.answer_id],
        "untraced": grid.untraced or None,
        "neurons": None,
        "metrics": {
            name_of(reading, "metric", "METRIC_"): {
                "clean": reading.clean,
                "corrupted": reading.corrupted,
                "scores": rows_of(reading.scores, grid.layers),
            }
            for reading in grid.readings
        },
        # What is not said is exact; no estimates are read here.
        "engine": name_of(grid, "engine", "ENGINE_").replace("unspecified", "exact"),
        "estimate": None,
        "attribution": None,
    }


def rows_of(scores, layers):
    """A list a token."""
    return [list(scores[at : at + layers]) for at in range(0, len(scores), layers or 1)]


def receivers(grid):
    """Where paths end, in grids of heads that are patched along paths."""
    if not grid.HasField("paths"):
        return None
    letters = {"query": "q", "key": "k", "value": "v"}
    return [
        f"{it.layer}.{it.head}.{letters[name_of(it, 'input', 'HEAD_INPUT_')]}"
        for it in grid.paths.receivers
    ]


def corrupted(grid):
    """The prompt that corrupts, where it is not noise."""
    if not grid.HasField("corrupted"):
        return None
    other = grid.corrupted
    return {
        "prompt": other.prompt,
        "tokens": [token.text for token in other.tokens],
        "token_ids": [token.id for token in other.tokens],
    }


def main():
    channel = grpc.insecure_channel(sys.argv[1])
    database = ProtoReflectionDescriptorDatabase(channel)
    services = database.get_services()
    assert "palimpsest.v1.JobService" in services, services
    jobs = Service(channel, DescriptorPool(database), "palimpsest.v1.JobService")

    listed = list(pages(jobs.ListJobs, "jobs"))
    states = [{"name": job.name, "state": name_of(job, "state", "JOB_STATE_")} for job in listed]
    print(json.dumps({"jobs": states}))

    done = next(job["name"] for job in states if job["state"] == "succeeded")
    job = jobs.GetJob(name=done).job
    kinds = type(job.trace).DESCRIPTOR.fields_by_name["kinds"].enum_type.values_by_number
    names = [kinds[kind].name.removeprefix("KIND_").lower() for kind in job.trace.kinds]
    for unit in pages(jobs.ListResults, "results", parent=done):
        fact = job.trace.facts[unit.unit // len(names)]
        print(json.dumps(result(unit, fact, names[unit.unit % len(names)]), sort_keys=True))


if __name__ == "__main__":
    main()
