"""Wears one store: what tests/soak.sh says."""

import argparse
import hashlib
import json
import random
import signal
import sys
import threading
import time
from pathlib import Path

from account import Account
from authority import VALID
from client import Client, prepare
from figures import Measures
from machine import ROOT, Child, Machine

CLIENTS = 2
WORKERS = 2
#: Seconds of a round: kills in its first part, calm in its last, and a look at the store.
ROUND, CALM = 240.0, 60.0
#: Seconds between kills, between other disturbances, and between two looks at the processes.
KILL, OTHER, LOOK = 4.0, 25.0, 5.0


class Soak:
    def __init__(self, machine: Machine, seed: int, seconds: float):
        self.machine, self.seconds = machine, seconds
        self.dice = random.Random(f"{seed} kills")
        self.account = Account(machine.folder)
        self.measures = Measures(machine.folder / "measures.csv")
        self.begun = time.monotonic()
        self.coordinators: list[Child | None] = [None] * len(machine.ports)
        self.workers: list[Child] = []
        self.hired = 0
        self.stopped: tuple[Child, float] | None = None
        self.filled: tuple[Path, float] | None = None
        self.full_until = 0.0
        self.clients = [Client(machine, self.account, n, seed) for n in range(CLIENTS)]
        self.clients[1].known = self.clients[0].known
        self.checks = 0
        self.first_size: tuple[int, int] | None = None

    @property
    def now(self) -> float:
        return time.monotonic() - self.begun

    # --- Processes ---------------------------------------------------------------------------

    def keep_up(self) -> None:
        """Starts again what has ended."""
        for n, child in enumerate(self.coordinators):
            if child is None or not child.lives:
                if child is not None and not child.awaited:
                    self.judge_coordinator(child)
                    child.awaited = True
                # Not again and again on a disk that is full.
                if child is None or child.age > 1:
                    self.coordinators[n] = self.machine.serve(n)
        for worker in [it for it in self.workers if not it.lives]:
            if not worker.awaited:
                self.account.found(f"{worker.name} ended: {worker.said()[-600:]}")
            self.workers.remove(worker)
        while len(self.workers) < WORKERS:
            self.hired += 1
            self.workers.append(self.machine.worker(self.hired))

    def judge_coordinator(self, child: Child) -> None:
        said = child.said()
        self.account.disturb()
        if "was written by another coordinator" in said and self.machine.bucket:
            return self.account.count(self.account.others, "deposed")
        if self.now < self.full_until + 30 and "space" in said:
            return self.account.count(self.account.others, "ended on a full disk")
        self.account.found(f"{child.name} ended by itself: {said[-1500:]}")

    def living(self) -> list[Child]:
        return [it for it in self.coordinators if it is not None and it.lives]

    def renew(self) -> None:
        """New certificates, again and again, before those that there are expire."""
        while True:
            time.sleep(VALID / 2)
            self.machine.authority.renew()
            for child in self.living():
                child.signal(signal.SIGHUP)
            # Those that came with the old one can connect no more once that is over.
            for worker in list(self.workers):
                worker.awaited = True
                worker.signal(signal.SIGTERM)

    # --- Disturbances ------------------------------------------------------------------------

    def kill(self, child: Child) -> None:
        self.account.disturb()
        who = child.name.split("-")[0].replace("serve", "coordinator")
        child.kill()
        self.account.count(self.account.kills, who)

    def kill_some(self) -> None:
        """Mostly one process, sometimes all at once, as when a machine loses its power."""
        drawn = self.dice.random()
        if drawn < 0.06:
            for child in [*self.living(), *self.workers]:
                self.kill(child)
        elif drawn < 0.5:
            for child in self.dice.sample(self.living(), min(1, len(self.living()))):
                self.kill(child)
        elif self.workers:
            self.kill(self.dice.choice(self.workers))

    def disturb(self) -> None:
        """What is no kill."""
        choices = ["leave", "stop"]
        choices += ["fill"] if self.machine.own_disk else []
        choices += ["clock"] if self.machine.clocks else []
        what = self.dice.choice(choices)
        if what == "leave" and self.workers:
            # It hands back what it has, and may not be able to.
            worker = self.dice.choice(self.workers)
            worker.awaited = True
            worker.signal(signal.SIGTERM)
        elif what == "stop" and self.stopped is None and self.living():
            seconds = self.dice.uniform(0.5, 6.0)
            child = self.dice.choice(self.living())
            self.account.disturb(seconds)
            child.signal(signal.SIGSTOP)
            self.stopped = (child, self.now + seconds)
        elif what == "fill" and self.filled is None:
            seconds = self.dice.uniform(1.0, 6.0)
            self.account.disturb(seconds)
            ballast = self.machine.fill()
            self.full_until = self.now + seconds
            self.filled = (ballast, self.full_until) if ballast else None
        elif what == "clock":
            # Not so far that a new certificate is out of date.
            self.machine.clock.write_text(f"{self.dice.uniform(-60, 60):+.3f}\n")
        else:
            return
        self.account.count(self.account.others, what)

    def relent(self, at_once: bool = False) -> None:
        """Ends what lasts for a while."""
        if self.stopped and (at_once or self.now > self.stopped[1]):
            self.stopped[0].signal(signal.SIGCONT)
            self.stopped = None
        if self.filled and (at_once or self.now > self.filled[1]):
            self.filled[0].unlink(missing_ok=True)
            self.filled = None

    # --- Looks -------------------------------------------------------------------------------

    def measure(self, calm: bool) -> None:
        # Of two coordinators the one that does more.
        leaders = [(*it.measure(), it.age) for it in self.living()]
        bytes_, descriptors, age = max(leaders, default=(0, 0, 0.0))
        workers = [it.measure() for it in self.workers if it.age > 5]
        worker_bytes, worker_descriptors = max(workers, default=(0, 0))
        self.measures.add(
            seconds=self.now,
            jobs=self.account.jobs,
            kills=sum(self.account.kills.values()),
            calm=calm,
            coordinator_bytes=bytes_,
            coordinator_descriptors=descriptors,
            coordinator_age=age,
            worker_bytes=worker_bytes,
            worker_descriptors=worker_descriptors,
            **{f"{part}_bytes": size for part, size in self.machine.size().items()},
        )

    def check(self) -> None:
        """Nobody asks and nothing is disturbed: the store is sound, and has what it should."""
        found = self.account.found
        for client in self.clients:
            client.may_ask.clear()
        for client in self.clients:
            limit = time.monotonic() + 300
            while not client.idle.wait(0.2) and time.monotonic() < limit:
                self.keep_up()
            if not client.idle.is_set():
                found(f"client {client.number} does not come to an end")
        for child in self.living():
            status = child.stop()
            if status != 0:
                found(f"{child.name} did not end well ({status}): {child.said()[-600:]}")
        for n in range(len(self.coordinators)):
            store = str(self.machine.store(n))
            status, out, said = self.machine.run("store", "verify", "--store", store, "--json")
            if status != 0:
                found(f"store verify {n}: {out[-1500:]} {said}")
        self.coordinators = [None] * len(self.coordinators)
        self.keep_up()
        self.check_kept()
        self.checks += 1
        if self.first_size is None:
            self.first_size = (self.account.jobs, sum(self.machine.size().values()))
        for client in self.clients:
            client.may_ask.set()
        print(
            f"soak: {self.now / 60:.0f} min, {self.account.jobs} jobs, "
            f"{sum(self.account.kills.values())} kills, {self.account.findings} findings",
            flush=True,
        )
        self.measures.draw(self.machine.folder / "soak.svg")

    def check_kept(self) -> None:
        """What was acknowledged is there, once, and the audit log goes on from what was kept."""
        run, found = self.machine.run, self.account.found
        for kept in self.dice.sample(self.account.checkpoints, min(3, len(self.account.checkpoints))):
            status, out, said = run("audit", "verify", "--since", str(kept))
            if status != 0:
                found(f"audit verify --since {kept}: {out} {said}")
        status, out, said = run("log", "-n", "100000", "--json", "--model", "tiny")
        if status != 0:
            return found(f"log: {said}")
        whys = [json.loads(line).get("why") for line in out.splitlines()]
        for why in self.account.edits:
            if whys.count(why) != 1:
                found(f"{why} was acknowledged and is {whys.count(why)} times in the log")
        twice = {it for it in whys if it and it.startswith(("edit", "mass")) and whys.count(it) > 1}
        if twice:
            found(f"more than once in the log: {sorted(twice)}")
        status, out, said = run("refs", "--model", "tiny")
        gone = [it for it in self.account.branches if it not in out.split()]
        if gone:
            found(f"branches were acknowledged and are not there: {gone} {said}")
        for job, digest in self.dice.sample(self.account.sweeps, min(3, len(self.account.sweeps))):
            status, out, said = run("job", "results", job, "--json")
            if hashlib.sha256(out.encode()).hexdigest() != digest:
                found(f"the results of {job} are others than before: {said}")
        tls = self.machine.folder / "tls"
        late = {
            "PALIMPSEST__CLIENT__CERTIFICATE": str(tls / "late.pem"),
            "PALIMPSEST__CLIENT__KEY": str(tls / "late.key"),
        }
        status, out, said = run("status", more=late)
        if status == 0:
            found(f"a certificate that is out of date is let in: {out}")

    # --- The whole ---------------------------------------------------------------------------

    def begin(self) -> None:
        """The model and its statistics, before anything is disturbed."""
        (self.machine.folder / "checkpoints").mkdir()
        prepare(self.machine)
        self.keep_up()
        model = str(ROOT / "tests/fixtures/llama")
        corpus = self.machine.folder / "corpus.txt"
        corpus.write_text("The tower stands in the middle of the city. " * 20)
        for command in (
            f"model import {model} --name tiny",
            f"stats collect --corpus {corpus} --layers 0-1 --length 40 --model tiny",
        ):
            status, _, said = self.machine.run(*command.split())
            if status != 0:
                raise SystemExit(f"soak: {command}: {said}")

    def run(self) -> None:
        self.begin()
        for client in self.clients:
            client.may_ask.set()
            client.start()
        threading.Thread(target=self.renew, daemon=True).start()
        begun, looked, killed, disturbed = self.now, 0.0, self.now, self.now
        while self.now < self.seconds:
            time.sleep(0.1)
            calm = self.now - begun > ROUND - CALM
            if self.now - begun > ROUND:
                self.check()
                begun = self.now
                continue
            self.relent(at_once=calm)
            self.keep_up()
            if self.now - looked > LOOK:
                self.measure(calm)
                looked = self.now
            if not calm and self.now > killed:
                self.kill_some()
                killed = self.now + self.dice.expovariate(1 / KILL)
            if not calm and self.now > disturbed:
                self.disturb()
                disturbed = self.now + self.dice.expovariate(1 / OTHER)
        self.relent(at_once=True)
        self.check()
        self.end()

    def end(self) -> None:
        for client in self.clients:
            client.ends = True
        for child in [*self.workers, *self.living()]:
            child.stop()
        account, measures = self.account, self.measures
        print(f"soak: {self.now / 3600:.2f} hours, {self.checks} looks at the whole store")
        print(f"done: {account.jobs} {dict(account.done)}")
        print(f"cut off by what was done to processes: {dict(account.cut)}")
        print(f"SIGKILLs: {sum(account.kills.values())} {dict(account.kills)}")
        print(f"other disturbances: {dict(account.others)}")
        for it in self.machine.skipped:
            print(f"skipped: {it}")
        if self.first_size:
            jobs, size = self.first_size
            grown = sum(self.machine.size().values()) - size
            print(f"the store grows by {grown / max(account.jobs - jobs, 1):,.0f} bytes a job")
            for column in ("coordinator_bytes", "coordinator_descriptors"):
                print(f"{column}: {measures.growth(column, jobs):+,.2f} a job")
        print(f"findings: {account.findings}")
        measures.draw(self.machine.folder / "soak.svg")
        self.machine.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/soak.sh")
    parser.add_argument("program", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("hours", type=float)
    parser.add_argument("--bucket", action="store_true")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--folder", type=Path, default=ROOT / "target/soak")
    given = parser.parse_args()
    print(f"soak: {given.hours} hours with seed {given.seed} in {given.folder}", flush=True)
    machine = Machine(given.program.resolve(), given.folder.resolve(), given.bucket)
    soak = Soak(machine, given.seed, given.hours * 3600)
    try:
        soak.run()
    except BaseException:
        for child in [*soak.workers, *soak.living()]:
            child.kill()
        machine.close()
        raise
    return 1 if soak.account.findings else 0


if __name__ == "__main__":
    sys.exit(main())
