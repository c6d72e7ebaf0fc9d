"""Settings are those that the command line would have, and nothing is shown where others read."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import palimpsest as pal
from palimpsest.settings import read

from .site import program

NAMES = ("server", "ca", "certificate", "key", "token_file", "insecure", "user", "store", "console")


class Settings(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        (self.folder / ".config/palimpsest").mkdir(parents=True)

    def same(self, environment: dict[str, str], *, config: str | None = None) -> None:
        """What is read here is what ``config show`` says."""
        environment = {"HOME": str(self.folder), **environment}
        command = [str(program()), "config", "show", "--json"]
        command += ["--config", config] if config else []
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**environment, "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        theirs = json.loads(done.stdout)
        ours = read(environment=environment, folder=self.folder, config=config)
        for name in NAMES:
            said = theirs[f"client.{name}"]
            value = said["value"] if isinstance(said, dict) else said
            own = getattr(ours, name)
            text = str(own).lower() if isinstance(own, bool) else str(own or "")
            if isinstance(own, bool):
                value = str(value).lower()
            self.assertEqual(text.rstrip("/"), str(value or "").rstrip("/"), name)

    def test_files_variables_and_defaults_go_in_the_programs_order(self) -> None:
        self.same({"USER": "ada"})
        self.same({"LOGNAME": "bob"})
        user = self.folder / ".config/palimpsest/palimpsest.toml"
        user.write_text('[client]\nserver = "http://far:7461"\nuser = "eve"\n')
        self.same({"USER": "ada"})
        here = self.folder / "palimpsest.toml"
        here.write_text('[client]\nserver = "http://near:7461"\nca = "~/ca.pem"\n')
        self.same({"USER": "ada"})
        self.same({"PALIMPSEST__CLIENT__CONSOLE": "https://lab.example:7464"})
        self.same({"PALIMPSEST__CLIENT__SERVER": "http://env:7461"})
        self.same({"PALIMPSEST__CLIENT__SERVER": "http://a:7461,http://b:7461"})
        self.same({"PALIMPSEST__CLIENT__TOKEN_FILE": "token"})
        named = self.folder / "named.toml"
        named.write_text('[client]\ninsecure = true\ntoken_file = "t"\n')
        self.same({}, config=str(named))

    def test_an_argument_goes_before_everything(self) -> None:
        found = read(
            environment={"PALIMPSEST__CLIENT__SERVER": "http://env:1"},
            folder=self.folder,
            server="head:7461",
            token="t",
        )
        self.assertEqual((found.server, found.target), ("http://head:7461", "head:7461"))
        self.assertNotIn("'t'", repr(found))

    def test_several_coordinators_are_addresses_of_one(self) -> None:
        def several(text: str) -> pal.settings.Settings:
            return read(environment={}, folder=self.folder, server=text)

        found = several("http://127.0.0.1:1, 127.0.0.2:2/").check()
        self.assertEqual(found.target, "127.0.0.1:1,127.0.0.2:2")
        self.assertEqual(found.places(), "ipv4:127.0.0.1:1,127.0.0.2:2")
        mixed = several("http://127.0.0.1:1,http://[::1]:2").check()
        self.assertEqual(mixed.places(), "ipv6:[::ffff:127.0.0.1]:1,[::1]:2")
        with self.assertRaisesRegex(pal.NoServer, "all with https"):
            several("http://a:1,https://b:1").check()
        with self.assertRaisesRegex(pal.NoServer, "'http://unix:x' is not an address"):
            several("http://a:1,unix:x").check()
        with self.assertRaisesRegex(pal.NoServer, "is known"):
            several("http://nobody.invalid:1,http://no-one.invalid:1").places()

    def test_a_token_is_not_shown_where_others_read_it(self) -> None:
        for given in (
            {"server": "http://head:7461", "token": "secret", "insecure": True},
            {"server": "http://127.0.0.1:7461", "token": "secret"},
            {"server": "http://127.0.0.1:7461,http://head:1", "token": "secret", "insecure": True},
        ):
            with self.assertRaisesRegex(pal.NoServer, "without TLS") as caught:
                read(environment={}, folder=self.folder, **given).check()
            self.assertNotIn("secret", str(caught.exception))
        with self.assertRaisesRegex(pal.NoServer, "name in ca the authority"):
            read(environment={}, folder=self.folder, server="https://head:7461").check()
        with self.assertRaisesRegex(pal.NoServer, "no server is named"):
            read(environment={}, folder=self.folder).check()
