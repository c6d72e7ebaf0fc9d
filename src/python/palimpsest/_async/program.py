"""What the program does for this package: it reads checkpoints, and writes them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from .. import errors, local
from ..settings import Settings
from . import bridge


async def run(settings: Settings, arguments: Sequence[str], what: str) -> str:
    """Runs ``palimpsest ARGUMENTS`` on the coordinator of the settings; gives what it said.

    Raises:
        NoServer: the program is not here.
        Error: it failed; the message is its own.
    """
    program = local.find_program()
    if settings.token is not None:
        raise errors.NoServer("give the token as token_file: the program reads it from there")
    environment = dict(os.environ)
    for key in ("server", "ca", "certificate", "key", "token_file", "insecure", "user"):
        value = getattr(settings, key)
        if value:
            said = str(value).lower() if value is True else str(value)
            environment[f"PALIMPSEST__CLIENT__{key.upper()}"] = said
    status, told = await bridge.run([program, *arguments], environment)
    if status != 0:
        raise errors.Error(told.strip() or f"'palimpsest {what}' ended with {status}")
    return told
