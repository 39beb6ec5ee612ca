#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures fetcher against oras, skopeo, aria2 and curl; prints markdown.

Scenarios:
  A  2 x 1 GiB, HTTP                     E  2,000 files of 16 KiB, HTTP
  B  one 2 GiB blob, HTTP                F  a second pull, nothing changed
  C  2 x 1 GiB, TLS 1.3 AES-128-GCM      G  memory with 16 TLS connections
  D  one 1 GiB blob, 32 MiB/s per connection
  L  2 x 512 MiB in layers of an image, as tar, tar+zstd and tar+gzip
  W  the sidecar: swaps under a reader, and idle

It needs build/parts (test/parts.sh; test/parts.sh bench), curl, and strace for the column of system
calls. Content and destinations lie in /dev/shm: up to 8 GiB of it at a time (with --full 18 GiB).
Without a fetcher binary the others are measured alone.
"""

import argparse
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time

import layers
import peers as clients
import report
import watch
from peers import Failed, Job, check, measure, remove, syscalls
from report import Result, Verdict, good, median
from servers import CAP, GIB, MIB, Backends, contents_of, size_of

TOP = pathlib.Path(__file__).resolve().parents[1]
OUT = TOP / "build" / "bench"
LANES = 16
SLACK = GIB
TAGS = {"A": ["two"], "B": ["large"], "C": ["two"], "D": ["one"], "E": ["many"], "F": ["two"],
        "G": ["one", "giant"], "L": [], "W": []}
TITLES = {"A": "2 x 1 GiB over HTTP", "B": "one 2 GiB blob over HTTP",
          "C": "2 x 1 GiB over TLS 1.3, AES-128-GCM",
          "D": "one 1 GiB blob, 32 MiB/s per connection", "E": "2,000 files of 16 KiB over HTTP",
          "F": "second pull of 2 x 1 GiB, nothing changed", "G": "memory, 16 TLS connections",
          "L": "2 x 512 MiB of bf16 weights in layers of a container image",
          "W": "the sidecar: swaps under a reader, and idle"}


def say(text):
    print(text, file=sys.stderr, flush=True)


def memory_left(folder):
    with open("/proc/meminfo") as f:
        available = next(int(line.split()[1]) << 10 for line in f if "MemAvailable" in line)
    left = os.statvfs(folder)
    return min(available, left.f_bavail * left.f_frsize)


class Bench:
    def __init__(self, options, folder):
        self.options = options
        self.folder = folder
        self.backends = Backends(folder / "servers", options.tls_server)
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self.fetchers = [clients.Fetcher("fetcher", shlex.split(options.fetcher))]
        self.fetchers += [clients.Fetcher(*split_also(text)) for text in options.also]
        self.raw = {}
        self.began = time.strftime("%Y-%m-%d", time.gmtime())

    # ---- pieces -----------------------------------------------------------------------------

    def wanted(self, peers):
        """Those that can run and were asked for; says why one cannot."""
        asked = [peer for peer in peers
                 if not self.options.peers or peer.name.split()[0] in self.options.peers]
        for peer in asked:
            if peer.ready():
                say(f"  {peer.name} is left out: {peer.ready()}")
        return [peer for peer in asked if not peer.ready()]

    def artifact(self, tag):
        folder = self.backends.dir
        needs = 2 * size_of(tag, self.options.giant) + SLACK
        if memory_left(folder) < needs:
            raise Failed(f"{needs / GIB:.0f} GiB of memory are needed in {folder}, "
                         f"{memory_left(folder) / GIB:.1f} are left")
        return self.backends.artifact(tag, contents_of(tag, self.options.giant))

    def job(self, stage, artifact, name="dest", **more):
        return Job(stage, artifact, self.folder / name, self.scratch, **more)

    def once(self, peer, result, job, number, deep):
        """One measured run and its check (deep None: none); the destination is the caller's to remove."""
        try:
            run = measure(peer, job)
            if deep is not None:
                check(peer, job, deep)
        except Failed as e:
            result.failure = str(e)
            say(f"  round {number}: {peer.name} failed: {e}")
            return
        result.runs.append(run)
        say(f"  round {number}: {peer.name:14} {run.wall:7.3f} s {run.cpu:6.2f} CPU-s "
            f"{run.rss / MIB:5.0f} MiB, server {run.server:.2f} CPU-s, others {run.foreign:.0%}")

    def floor(self, results, job, number):
        """curl, then openssl over what curl wrote."""
        for peer in (clients.FloorReceive("floor receive"), clients.FloorHash("floor hash")):
            if not results[peer.name].failure:
                self.once(peer, results[peer.name], job, number, False)

    def count_syscalls(self, peers, results, job):
        """Also the first contact of each client with this content, so that none runs cold."""
        for peer in peers:
            try:
                results[peer.name].syscalls = syscalls(peer, job)
            except Failed as e:
                say(f"  {peer.name} under strace failed: {e}")
            remove(job.dest)

    def rounds(self, peers, results, job, rounds, floor):
        turns = [*peers, *(["floor"] if floor else [])]
        for number in range(1, rounds + 1):
            shift = (number - 1) % len(turns)
            for peer in turns[shift:] + turns[:shift]:
                remove(job.dest)
                if peer == "floor":
                    self.floor(results, job, number)
                elif not results[peer.name].failure:
                    self.once(peer, results[peer.name], job, number, number == 1)
        remove(job.dest)

    def pulls(self, letter, stage, peers, targets, floor=True, strace=True):
        """Scenarios A to E."""
        artifact = self.artifact(TAGS[letter][0])
        peers = self.wanted(peers)
        job = self.job(stage, artifact)
        floor = floor and not self.options.peers
        names = [peer.name for peer in peers] + (["floor receive", "floor hash"] if floor else [])
        results = {name: Result(name) for name in names}
        if strace and self.options.strace:
            self.count_syscalls(peers, results, job)
        self.rounds(peers, results, job, self.options.rounds, floor)
        self.raw[letter] = {name: result.as_dict() for name, result in results.items()}
        lines = report.pull_table(results, artifact.size, clients.CORES)
        suites = sorted({s for r in results.values() for run in r.runs for s in run.seen.suites})
        if suites:
            lines += ["", f"Negotiated, by the server's log: {', '.join(suites)}."]
        return results, [*lines, "", *report.noise(results), "",
                         *(str(verdict) for verdict in targets(results, artifact))]

    def usual(self):
        return [*self.fetchers, clients.Oras("oras"), clients.Skopeo("skopeo"),
                clients.Aria2("aria2c -x8"), clients.CurlSum("curl + openssl")]

    # ---- scenarios ----------------------------------------------------------------------------

    def run_a(self):
        return self.pulls("A", self.backends.plain(), self.usual(), lambda r, a: [
            report.at_most(r, "wall", 0.80, "wall"), report.at_most(r, "cpu", 1.0, "CPU")])[1]

    def run_b(self):
        return self.pulls("B", self.backends.plain(), self.usual(), lambda r, a: [
            report.at_most(r, "wall", 0.80, "wall")])[1]

    def run_c(self):
        return self.pulls("C", self.backends.tls(), self.usual(), lambda r, a: [
            report.at_most(r, "wall", 0.70, "wall"), report.at_most(r, "cpu", 0.9, "CPU")])[1]

    def run_d(self):
        peers = [*self.fetchers, clients.Oras("oras"), clients.Aria2("aria2c -x16", LANES)]

        def targets(results, artifact):
            ideal = artifact.size / (LANES * CAP)
            return [*capped_targets(results, ideal), "",
                    f"size / ({LANES} x cap) = {ideal:.2f} s."]
        return self.pulls("D", self.backends.capped(), peers, targets, floor=False,
                          strace=False)[1]

    def run_e(self):
        def targets(results, artifact):
            return [report.at_most(results, "wall", 0.65, "wall"),
                    one_request(results, len(artifact.items))]
        return self.pulls("E", self.backends.plain(), self.usual(), targets)[1]

    def run_f(self):
        stage, artifact = self.backends.plain(), self.artifact("two")
        peers = self.wanted([*self.fetchers, clients.Oras("oras"), clients.Skopeo("skopeo")])
        results = {peer.name: Result(peer.name) for peer in peers}
        for peer in peers:  # one after the other: each keeps its first pull meanwhile
            job = self.job(stage, artifact, "kept")
            first = Result(peer.name)
            self.once(peer, first, job, 0, True)
            results[peer.name].failure = first.failure
            for number in range(1, self.options.rounds + 1):
                if not results[peer.name].failure:
                    self.once(peer, results[peer.name], job, number, False)
            remove(job.dest)
        self.raw["F"] = {name: result.as_dict() for name, result in results.items()}
        return [*report.second_pull_table(results), "", *report.noise(results), "",
                *map(str, second_targets(results))]

    def run_g(self):
        stage = self.backends.tls()
        by_size = {}
        for tag in TAGS["G"]:
            artifact = self.artifact(tag)
            gib = artifact.size // GIB
            peers = self.wanted([*self.fetchers, clients.Oras("oras")])
            by_size[gib] = {peer.name: Result(peer.name) for peer in peers}
            job = self.job(stage, artifact, connections=LANES)
            self.rounds(peers, by_size[gib], job, min(3, self.options.rounds), False)
        self.raw["G"] = {f"{name} {gib} GiB": result.as_dict()
                         for gib, results in by_size.items() for name, result in results.items()}
        return [*report.memory_table(by_size), "", *map(str, memory_targets(by_size))]

    def run_l(self):
        needs = 10 * self.options.layer_mib * MIB + SLACK
        if memory_left(self.folder) < needs:
            raise Failed(f"{needs / GIB:.0f} GiB of memory are needed in {self.folder}")
        lines, self.raw["L"] = layers.run(self, say)
        return [*lines, "", layers.NOTE]

    def run_w(self):
        if memory_left(self.folder) < SLACK:
            raise Failed(f"1 GiB of memory is needed in {self.folder}")
        lines, self.raw["W"] = watch.run(self, say)
        return [*lines, "", watch.NOTE]

    def run(self):
        sections = []
        letters = self.options.scenario
        for at, letter in enumerate(letters):
            say(f"{letter}: {TITLES[letter]}")
            if self.options.wait_quiet:
                share = clients.wait_quiet(0.05, self.options.wait_quiet)
                say(f"  others use {share:.0%} of the machine")
            self.backends.keep_only({tag for rest in letters[at:] for tag in TAGS[rest]})
            try:
                lines = getattr(self, f"run_{letter.lower()}")()
            except (Failed, OSError, RuntimeError, subprocess.SubprocessError) as e:
                say(f"  left out: {e}")
                lines = [f"Left out: {e}."]
            sections += ["", f"### {letter}. {TITLES[letter]}", "", *lines]
            text = self.write(sections)  # after each one: a run that is stopped leaves its tables
        return text

    def write(self, sections):
        """The whole page so far, in the file; and returned."""
        words = None if self.fetchers[0].ready() else self.fetchers[0].words[:1]
        head = f"Machine: {report.machine()}. {self.began}, {self.options.rounds} rounds."
        text = "\n".join([head, "", f"Programs: {report.programs(words)}.", *sections, "",
                          report.NOTES, ""])
        out = self.options.out
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
        out.with_suffix(".json").write_text(json.dumps(self.raw, indent=1) + "\n")
        return text


# ---- targets --------------------------------------------------------------------------------


def capped_targets(results, ideal):
    mine, oras = good(results, "fetcher"), good(results, "oras")
    faster = Verdict("at least 12x faster than oras")
    near = Verdict(f"wall <= 1.15x of size / ({LANES} x cap)")
    if mine and oras:
        times = median(oras.of("wall")) / median(mine.of("wall"))
        faster = Verdict(faster.text, f"{times:.1f}x", times >= 12)
    if mine:
        share = median(mine.of("wall")) / ideal
        near = Verdict(near.text, f"{share:.2f}x", share <= 1.15)
    return [faster, near]


def one_request(results, blobs):
    verdict = Verdict(f"one request a blob ({blobs:,})")
    mine = good(results, "fetcher")
    if mine:
        most = max(mine.seen("blob_gets"))
        verdict = Verdict(verdict.text, f"{most:,} GETs", most == blobs)
    return verdict


def second_targets(results):
    mine = good(results, "fetcher")
    none, quick = Verdict("no blob GET"), Verdict("wall <= 100 ms")
    if mine:
        gets = max(mine.seen("blob_gets"))
        none = Verdict(none.text, f"{gets}", gets == 0)
        wall = median(mine.of("wall")) * 1000
        quick = Verdict(quick.text, f"{wall:.0f} ms", wall <= 100)
    return [none, quick]


def memory_targets(by_size):
    """The same: within a tenth, or a MiB (what the kernel's own count may be off)."""
    small = Verdict("peak RSS <= 32 MiB")
    same = Verdict(f"the same for {' and '.join(map(str, by_size))} GiB (within 10 % or 1 MiB)")
    peaks = [max(found.of("rss")) / MIB for results in by_size.values()
             if (found := good(results, "fetcher"))]
    if len(peaks) == len(by_size):
        small = Verdict(small.text, f"{max(peaks):.1f} MiB", max(peaks) <= 32)
        same = Verdict(same.text, " and ".join(f"{p:.1f}" for p in peaks) + " MiB",
                       max(peaks) <= max(1.1 * min(peaks), min(peaks) + 1))
    return [small, same]


# ---- command line -----------------------------------------------------------------------------


def split_also(text):
    name, _, command = text.partition("=")
    if not name or not command:
        raise SystemExit(f"--also {text}: wanted NAME=COMMAND [FLAG...]")
    return name, shlex.split(command)


def letters_of(text):
    found = text.upper().replace(" ", "").split(",")
    for letter in found:
        if letter not in TITLES:
            raise argparse.ArgumentTypeError(f"{letter} is none of {','.join(TITLES)}")
    return found


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", type=letters_of, default=list(TITLES), metavar="A,B",
                        help="only these (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default 5; G: at most 3)")
    parser.add_argument("--out", type=pathlib.Path, default=OUT / "RESULTS.md", metavar="FILE",
                        help="where the markdown goes besides stdout; raw numbers beside it as "
                             ".json (default build/bench/RESULTS.md)")
    parser.add_argument("--peers", type=lambda s: set(s.split(",")), default=None,
                        metavar="fetcher,oras", help="only these clients, and no floor")
    parser.add_argument("--fetcher", metavar="COMMAND",
                        default=os.environ.get("FETCHER_BIN", str(TOP / "build" / "fetcher")),
                        help="binary, with flags for pull (default FETCHER_BIN, build/fetcher)")
    parser.add_argument("--also", action="append", default=[], metavar="NAME=COMMAND",
                        help="a second fetcher in the same rounds, e.g. c4='build/fetcher "
                             "--concurrency 4'; may be given several times")
    parser.add_argument("--tls-server", choices=["nginx", "registry"], default="nginx",
                        help="nginx with one suite, or docker-registry's own TLS")
    parser.add_argument("--full", dest="giant", action="store_const", const=8, default=4,
                        help="G with 8 GiB, not 4")
    parser.add_argument("--layer-mib", type=int, default=512, metavar="N",
                        help="L with files of N MiB, to see whether it works")
    parser.add_argument("--no-strace", dest="strace", action="store_false",
                        help="no column of system calls")
    parser.add_argument("--wait-quiet", type=int, default=0, metavar="SECONDS",
                        help="before each scenario wait at most so long for an idle machine")
    options = parser.parse_args(argv)
    if options.rounds < 1:
        parser.error("--rounds is at least 1")
    if options.peers:
        options.peers |= {split_also(text)[0].split()[0] for text in options.also}
    return options


def make_folder():
    """A folder on tmpfs for this run. Folders of runs that were killed are removed."""
    base = pathlib.Path("/dev/shm")
    if not os.access(base, os.W_OK):
        base = OUT
        base.mkdir(parents=True, exist_ok=True)
        say(f"no /dev/shm: the bench measures the disk of {base}")
    for old in base.glob("fetcher-bench-*"):
        if not os.path.exists(f"/proc/{old.name.rsplit('-', 1)[1]}"):
            shutil.rmtree(old, ignore_errors=True)
    folder = base / f"fetcher-bench-{os.getpid()}"
    folder.mkdir()
    return folder


def main(argv):
    options = parse(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = make_folder()
    bench = None
    try:
        bench = Bench(options, folder)
        print(bench.run())
    finally:
        if bench:
            bench.backends.stop()
        shutil.rmtree(folder, ignore_errors=True)
    failed = [f"{letter} {name}: {found['failure']}" for letter, results in bench.raw.items()
              for name, found in results.items()
              if name.split()[0] == "fetcher" and found["failure"]]
    for line in failed:
        say(f"bench: {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
