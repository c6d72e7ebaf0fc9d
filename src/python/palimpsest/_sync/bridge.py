"""What differs between the two clients beyond the words async and await: written twice."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import grpc

from .._async.bridge import options
from ..settings import Settings

T = TypeVar("T")


def open_channel(settings: Settings) -> Any:
    """A channel to a coordinator."""
    if not settings.is_secure:
        return grpc.insecure_channel(settings.places(), options=options(settings))
    credentials = grpc.ssl_channel_credentials(*settings.tls())
    return grpc.secure_channel(settings.places(), credentials, options=options(settings))


def sleep(seconds: float) -> None:
    """Waits."""
    time.sleep(seconds)


def aside(act: Callable[..., T], *arguments: Any) -> T:
    """Does what waits where it holds up nobody."""
    return act(*arguments)


def run(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Runs a program: its status, and what it said."""
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.returncode, done.stdout.decode(errors="replace")


def feed(messages: Iterable[Any]) -> Any:
    """Messages as a call that takes a stream wants them."""
    return iter(messages)
