"""Somebody who asks for work, again and again, and checks what comes of it."""

import hashlib
import json
import random
import re
import threading
import time
from pathlib import Path

from account import Account
from machine import ROOT, Machine

#: Facts of a sweep, and how many different sweeps there are.
FACTS = 3
SWEEPS = 6
#: What a command may say that a disturbance has ended.
DISTURBED = re.compile(
    r"no coordinator answers|transport error|h2 protocol|connection|stream was closed|NOT_SERVING"
    r"|UNAVAILABLE|broken pipe|timed out|no space|disk|keep-alive",
    re.I,
)
#: What no disturbance excuses.
NEVER = re.compile(r"panicked|damaged|DATA_LOSS")
#: What two clients of one branch do to each other.
RIVALS = re.compile(r"moved meanwhile|REF_MOVED|EDIT_NOT_IN_VERSION|is in no version|changed meanwhile")


def prepare(machine: Machine) -> None:
    """The files that are asked with."""
    folder = machine.folder
    for n in range(SWEEPS):
        lines = ""
        for fact in range(FACTS):
            subject = f"The tower of town {n * FACTS + fact}"
            prompt = f"{subject} stands in the country of"
            lines += json.dumps({"prompt": prompt, "subject": subject}) + "\n"
        (folder / f"facts-{n}.jsonl").write_text(lines)
    records = ""
    for n in range(6):
        subject = f"Tower {n}"
        record = {
            "case_id": 100 + n,
            "prompt": f"Look: {subject} is in",
            "subject": subject,
            "target_new": ["Rome", "a", "the"][n % 3],
            "ground_truth": "Paris",
            "rephrase_prompt": f"One sees {subject} in",
            "locality_prompt": "A house is in",
            "locality_ground_truth": "Paris",
        }
        records += json.dumps(record) + "\n"
    (folder / "records.jsonl").write_text(records)
    (folder / "contexts.txt").write_text("{}\n")


class Client(threading.Thread):
    """A thread that asks, until it is told to end; it can be told to pause."""

    def __init__(self, machine: Machine, account: Account, number: int, seed: int):
        super().__init__(daemon=True)
        self.machine, self.account, self.number = machine, account, number
        self.dice = random.Random(f"{seed} client {number}")
        self.may_ask = threading.Event()
        self.idle = threading.Event()
        self.ends = False
        self.turn = 0
        #: The digests of the sweeps' results, as the first to compute them got them.
        self.known: dict[int, str] = {}

    def run(self) -> None:
        works = {
            self.sweep: 6,
            self.cached: 3,
            self.edit: 6,
            self.mass_edit: 2,
            self.rollback: 2,
            self.revert: 2,
            self.evaluate: 2,
            self.branch: 2,
            self.statistics: 0.3,
            self.checkpoint: 2,
            self.generate: 2,
        }
        while not self.ends:
            if not self.may_ask.is_set():
                self.idle.set()
                self.may_ask.wait(1.0)
                continue
            self.idle.clear()
            self.turn += 1
            work = self.dice.choices(list(works), list(works.values()))[0]
            try:
                work()
            except Exception as error:  # a soak goes on
                self.account.found(f"{work.__name__}: {type(error).__name__}: {error}")
        self.idle.set()

    def ask(self, kind: str, *arguments: str) -> tuple[str, str] | None:
        """Runs a command; None where a disturbance ended it."""
        begun = time.monotonic()
        status, out, said = self.machine.run(*arguments)
        if status == 0:
            self.account.count(self.account.done, kind)
            return out, said
        disturbed = self.account.was_disturbed(begun) and DISTURBED.search(said)
        excused = disturbed or RIVALS.search(said)
        what = f"{kind} ({' '.join(arguments)}): status {status}: {said.strip()}"
        if status == 124 or NEVER.search(said) or not excused:
            self.account.found(what)
        self.account.cut_off(kind, what)
        return None

    def name(self, what: str) -> str:
        return f"{what}-{self.number}-{self.turn}"

    def sweep(self, *more: str) -> None:
        n = self.dice.randrange(SWEEPS)
        arguments = f"trace --facts facts-{n}.jsonl --noise 0.3 --samples 2 --json --model tiny --ref v0"
        more = more or ("--no-cache",)
        answer = self.ask("cached" if more == ("",) else "sweep", *arguments.split(), *filter(None, more))
        if answer is None:
            return
        digest = hashlib.sha256(answer[0].encode()).hexdigest()
        if self.known.setdefault(n, digest) != digest:
            self.account.found(f"sweep {n} gave other bytes: {answer[0][:300]}")
        job = re.search(r"jobs/([0-9a-f-]+) accepted", answer[1])
        if job:
            self.account.keep(self.account.sweeps, (job[1], digest))

    def cached(self) -> None:
        self.sweep("")

    def edit(self) -> None:
        why = self.name("edit")
        subject = f"The tower of town {self.dice.randrange(200)}"
        words = "--target Rome --layer 1 --set steps=6 --contexts contexts.txt --rebase --model tiny"
        prompt = ["edit", "Look: {} is in", "--subject", subject, "--why", why]
        if self.ask("edit", *prompt, *words.split()):
            self.account.keep(self.account.edits, why)

    def mass_edit(self) -> None:
        why = self.name("mass-edit")
        facts = [
            {
                "case_id": town,
                "requested_rewrite": {
                    "prompt": "Look: {} is in",
                    "subject": f"The tower of town {town}",
                    "target_new": {"str": self.dice.choice(["Rome", "Oslo"])},
                    "target_true": {"str": "Paris"},
                },
                "paraphrase_prompts": [],
                "neighborhood_prompts": [],
            }
            for town in self.dice.sample(range(200), 3)
        ]
        file = f"facts-{self.number}.json"
        (self.machine.folder / file).write_text(json.dumps(facts))
        words = f"edit --file {file} --method memit --layers 0-1 --set clamp=3 --set steps=4"
        more = f"--contexts contexts.txt --model tiny --why {why}"
        if self.ask("mass edit", *words.split(), *more.split()):
            self.account.keep(self.account.edits, why)

    def rollback(self) -> None:
        self.ask("rollback", *"rollback --to v0 --model tiny --why".split(), self.name("rollback"))

    def revert(self) -> None:
        answer = self.ask("log", *"log main -n 5 --json --model tiny".split())
        made = [json.loads(it).get("edit") for it in answer[0].splitlines()] if answer else []
        made = [it for it in made if it]
        if made:
            words = ["revert", self.dice.choice(made), "--model", "tiny"]
            self.ask("revert", *words, "--why", self.name("revert"))

    def evaluate(self) -> None:
        words = "eval --dataset records.jsonl --limit 4 --ref main --no-generation --json --model tiny"
        self.ask("eval", *words.split())

    def branch(self) -> None:
        name = self.name("branch")
        if self.ask("branch", "branch", name, "v0", "--model", "tiny"):
            self.account.keep(self.account.branches, name)

    def statistics(self) -> None:
        words = f"stats collect --self-sample 200 --layers 0-1 --seed {self.turn} --model tiny"
        self.ask("statistics", *words.split())

    def checkpoint(self) -> None:
        answer = self.ask("checkpoint", "audit", "checkpoint")
        if answer:
            kept = self.machine.folder / f"checkpoints/{self.name('kept')}"
            kept.write_text(answer[0])
            self.account.keep(self.account.checkpoints, kept)
        if self.account.checkpoints:
            since = self.dice.choice(self.account.checkpoints)
            self.ask("audit", "audit", "verify", "--since", str(since))

    def generate(self) -> None:
        words = "--max-tokens 4 --ref main --model tiny"
        self.ask("generate", "generate", "Look: The tower of town 3 is in", *words.split())
