# SPDX-License-Identifier: Apache-2.0
"""Scenario W, the sidecar: swaps under a reader, push to swap, the cost of doing nothing."""

import calendar
import gc
import json
import math
import multiprocessing
import os
import pathlib
import random
import re
import signal
import statistics
import subprocess
import time

import report
from peers import CORES, Failed, busy_seconds, clean_environment, remove
from report import Verdict, spread
from servers import MIB  # which also makes lib known

from lib import sidecar
from lib.content import Content, data
from lib.proc import die_with_parent, free_port

SWAPS = 40              # of one round, under a reader that does nothing but read
TOLD = 20               # pushes of one round for POST /sync, as many for SIGHUP
WAITED = 6              # pushes of one round that nobody tells of, at PERIOD
PERIOD = 1
FAR = "1h"
READ = 4 << 10
IDLE_SECONDS = 65
IDLE_PERIOD = 300       # the default of --period; an hour has 12 looks
SETTLE = 1.0            # after a pull, before memory is looked at
WAIT_SECONDS = 30
POLL = 0.0001
BUNDLE = pathlib.Path("/etc/ssl/certs/ca-certificates.crt")
NOTE = f"""\
- W: DEST is on tmpfs, where fsync costs nothing. Each version has a file of 4 KiB, which is read,
  and one of 64 KiB, both fetched, and one of 1 MiB that stays and is linked. The gap reaches from
  the end of the last read of the old version to the end of the first of the new one: it cannot be
  shorter than one read, and where others use the machine it is as long as the reader was kept from
  it: the longest time between two reads without a swap in between shows how long that was.
- Push to swap begins when the registry has answered the PUT of the manifest and ends with the
  first read of the new version. At --period it has the wait for the next look in it; without that:
  from when the HEAD came in that saw the new digest, by the registry's log.
- RSS (smaps_rollup) and peak (VmHWM) are those of sidecars {SETTLE:.0f} s after a pull of 64 MiB.
  Wake-ups are the voluntary context switches of all threads: at --period 5m in {IDLE_SECONDS} s
  without a look; at --period {PERIOD}s in as many seconds, divided by the number of HEADs; CPU
  likewise. An hour at --period 5m is {3600 // IDLE_PERIOD} looks and what was used between them.
  With TLS the sidecar trusts the system's bundle."""


def wait(ready, what, sidecar_=None, pause=0.002):
    give_up = time.monotonic() + WAIT_SECONDS
    while not (value := ready()):
        if sidecar_ and sidecar_.process.poll() is not None:
            raise Failed(f"the sidecar ended: {sidecar_.last_line()}")
        if time.monotonic() > give_up:
            raise Failed(f"{what} did not happen in {WAIT_SECONDS} s")
        time.sleep(pause)
    return value


class Noise:
    """What others use of the machine in a with block; all we start in it has to end in it."""

    def __init__(self, stage, shares):
        self.stage, self.shares = stage, shares

    def _spent(self):
        return busy_seconds() - sum(os.times()[:4]) - self.stage.cpu_seconds()

    def __enter__(self):
        self.began, self.before = time.monotonic(), self._spent()

    def __exit__(self, *exc):
        wall = time.monotonic() - self.began
        self.shares.append(min(1.0, max(0.0, (self._spent() - self.before) / (wall * CORES))))


class Watch:
    """A running `fetcher watch`. cpu: seconds, also of threads that have ended."""

    def __init__(self, peer, stage, ref, folder, *flags, ca=None, http=False):
        self.folder = folder
        folder.mkdir()
        self.dest = folder / "dest"
        self.err = folder / "err"
        trust = ["--ca-file", str(ca)] if ca else ["--plain-http"]
        self.bind = f"127.0.0.1:{free_port()}" if http else None
        self.argv = [os.path.abspath(peer.words[0]), "watch", *trust, "--jitter", "0",
                     "--termination-log", "", *(["--http-bind", self.bind] if http else []),
                     *peer.words[1:], *flags, ref, str(self.dest)]
        with open(self.err, "wb") as err:
            self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=err,
                                            stderr=err, cwd=folder, preexec_fn=die_with_parent,
                                            env=clean_environment(folder))
        self.proc = pathlib.Path(f"/proc/{self.process.pid}")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        remove(self.folder)

    def last_line(self):
        lines = self.err.read_text(errors="replace").strip().splitlines() or ["no message"]
        return lines[-1][:300]

    def published(self, version):
        marker = self.dest / ".fetcher" / "ready.json"
        wait(lambda: marker.exists() and json.loads(marker.read_text())["digest"] == version.digest,
             "the publication", self)

    def sync(self):
        status, _, _ = sidecar.get(f"http://{self.bind}/sync", "POST")
        if status != 202:
            raise Failed(f"POST /sync was answered {status}")

    def hup(self):
        os.kill(self.process.pid, signal.SIGHUP)

    @property
    def cpu(self):
        """By its own clock (clock_getcpuclockid): exact, where /proc/PID/stat counts ticks."""
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def rss(self):
        """Bytes. VmRSS may be off by 64 pages a CPU; smaps_rollup is counted page by page."""
        return int(re.search(r"\nRss:\s+(\d+)", (self.proc / "smaps_rollup").read_text())[1]) << 10

    def peak(self):
        return int(re.search(r"VmHWM:\s+(\d+)", (self.proc / "status").read_text())[1]) << 10

    def switches(self):
        """Voluntary context switches of all threads that are there."""
        total = 0
        for task in (self.proc / "task").iterdir():
            try:
                text = (task / "status").read_text()
            except OSError:  # a resolver or lane that has ended meanwhile
                continue
            total += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", text, re.M)[1])
        return total


# ---- a reader -----------------------------------------------------------------------------------


def _read_on(path, pause, known, now, stop, pipe):
    """In a process of its own. now: number of the version that the last read saw."""
    die_with_parent()
    gc.disable()
    clock, last, last_end = time.monotonic, None, 0.0
    reads, wrong, changes, longest = 0, [], [], 0.0
    pipe.send("ready")
    began = clock()
    while not stop.value:
        reads += 1
        try:
            fd = os.open(path, os.O_RDONLY)
            text = os.read(fd, READ)
            os.close(fd)
        except OSError as e:
            wrong.append(repr(e))
            continue
        end = clock()
        if text != last:
            if text not in known:
                wrong.append(f"{len(text)} bytes of no version")
                continue
            if last is not None:
                changes.append((known[text], end - last_end, end))
            now.value = known[text]
            last = text
        elif end - last_end > longest:
            longest = end - last_end
        last_end = end
        if pause:
            time.sleep(pause)
    pipe.send({"reads": reads, "wrong": wrong, "changes": changes, "longest": longest,
               "each": (clock() - began) / reads})


class Reader:
    """Reads one file through DEST/current again and again; .result after the with block: reads,
    wrong (failed reads, and bytes of no version), changes (number, gap, when), seconds of one read:
    each (average), longest (without a change)."""

    def __init__(self, path, known, pause=0.0):
        fork = multiprocessing.get_context("fork")
        self.now = fork.RawValue("l", -1)
        self.stop = fork.RawValue("b", 0)
        self.pipe, theirs = fork.Pipe()
        self.process = fork.Process(target=_read_on, daemon=True,
                                    args=(str(path), pause, known, self.now, self.stop, theirs))

    def __enter__(self):
        self.process.start()
        self.pipe.recv()
        return self

    def __exit__(self, *exc):
        self.stop.value = 1
        self.result = self.pipe.recv()
        self.process.join(10)

    def has(self, number, watch):
        wait(lambda: self.now.value == number, f"version {number} under the reader", watch, 0.0005)


# ---- swaps --------------------------------------------------------------------------------------


def config_of(number):
    return json.dumps({"n": number}).encode().ljust(READ)


class Swaps:
    """Versions to move a tag between, and what was measured of one fetcher."""

    def __init__(self, bench, peer):
        self.bench = bench
        self.peer = peer
        self.stage = bench.backends.plain()
        self.versions = sidecar.Versions(bench.backends.registry, "bench/swap")
        same = data(99, MIB)
        self.made = [self.versions.make({"config.json": config_of(n), "w-2.bin": same,
                                         "w-1.bin": data(n, 64 << 10)}) for n in range(20)]
        self.known = {config_of(n): n for n in range(len(self.made))}
        self.at = 0
        self.gaps, self.reads, self.each, self.wrong, self.swaps = [], 0, [], [], 0
        self.others, self.longest = [], 0.0
        self.times = {"sync": [], "hup": [], "period": [], "after": []}

    def push(self):
        """Moves the tag on; when the registry had answered, and the number."""
        self.at = (self.at + 1) % len(self.made)
        self.versions.move(self.made[self.at])
        return time.monotonic(), self.at

    def start(self, *flags, **how):
        self.versions.move(self.made[self.at])
        return Watch(self.peer, self.stage, self.versions.ref, self.bench.folder / "watch", *flags,
                     **how)

    def reader(self, watch, pause=0.0):
        watch.published(self.made[self.at])
        return Reader(watch.dest / "current" / "config.json", self.known, pause)

    def take(self, reader, pushed):
        """Of a reader that has ended, for each push: seconds to its first read, and both times."""
        self.wrong += reader.result["wrong"]
        seen = reader.result["changes"]
        if [n for n, _, _ in seen] != [n for _, n in pushed]:
            raise Failed(f"the reader saw {len(seen)} changes of {len(pushed)}, or others")
        return [(when - at, at, when) for (at, _), (_, _, when) in zip(pushed, seen)]

    def under_reader(self):
        """The gap: a reader that does nothing else."""
        with self.start("--period", FAR, http=True) as watch:
            pushed = []
            with self.reader(watch) as reader:
                for _ in range(SWAPS):
                    pushed.append(self.push())
                    watch.sync()
                    reader.has(self.at, watch)
            self.take(reader, pushed)
        self.gaps += [gap for _, gap, _ in reader.result["changes"]]
        self.reads += reader.result["reads"]
        self.each.append(reader.result["each"])
        self.longest = max(self.longest, reader.result["longest"])
        self.swaps += len(pushed)

    def told(self, how, times):
        """From push to swap, when somebody says so. The reader mostly sleeps."""
        with self.start("--period", FAR, http=how == "sync") as watch:
            pushed = []
            with self.reader(watch, POLL) as reader:
                for _ in range(times):
                    pushed.append(self.push())
                    getattr(watch, how)()
                    reader.has(self.at, watch)
                    watch.published(self.made[self.at])
                    time.sleep(0.05)  # until it is idle again
            self.times[how] += [took for took, _, _ in self.take(reader, pushed)]

    def waited(self):
        """Nobody says so. The wait ends when the HEAD comes in that sees the new digest."""
        offset = self.stage.log_end()
        ahead = time.time() - time.monotonic()
        with self.start("--period", f"{PERIOD}s") as watch:
            pushed = []
            with self.reader(watch, POLL) as reader:
                for _ in range(WAITED):
                    time.sleep(random.uniform(0.05, PERIOD))  # any point of the period
                    pushed.append(self.push())
                    reader.has(self.at, watch)
            seen = self.take(reader, pushed)
        self.stage.seen_since(offset)  # until all lines are there
        heads = [when - ahead for when in heads_of(self.stage.log_path, offset, self.versions)]
        for took, at, when in seen:
            self.times["period"].append(took)
            self.times["after"].append(when - max(at, max(t for t in heads if t < when)))

    def round(self):
        with Noise(self.stage, self.others):
            self.under_reader()
            self.told("sync", TOLD)
            self.told("hup", TOLD)
            self.waited()

    def as_dict(self):
        return {"swaps": self.swaps, "reads": self.reads, "wrong": self.wrong, "gaps": self.gaps,
                "each": self.each, "longest": self.longest, "times": self.times,
                "others": self.others}


def heads_of(log_path, offset, versions):
    """When each HEAD of the tag came in, seconds since 1970; lines are written behind answers."""
    with open(log_path, "rb") as f:
        f.seek(offset)
        text = f.read().decode(errors="replace")
    found, wanted = [], re.escape(f"/v2/{versions.repo}/manifests/{versions.tag}")
    for line in text.splitlines():
        if 'msg="response completed"' in line and "http.request.method=HEAD" in line and \
                re.search(rf'request\.uri="?{wanted}"?\s', line):
            day, fraction = re.search(r'time="([^".]+)\.?(\d*)Z"', line).groups()
            at = calendar.timegm(time.strptime(day, "%Y-%m-%dT%H:%M:%S"))
            number, unit = re.search(r'response\.duration="?([\d.]+)(\w+)', line).groups()
            took = float(number) * {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1}[unit]
            found.append(at + float(f"0.{fraction or 0}") - took)
    return found


# ---- nothing happens ----------------------------------------------------------------------------


class Idle:
    """One way to run an idle sidecar, and what was measured of it."""

    def __init__(self, bench, peer, tls, http):
        self.bench, self.peer, self.http = bench, peer, http
        self.stage = bench.backends.tls() if tls else bench.backends.plain()
        self.ca = bundle(bench, self.stage.ca) if tls else None
        self.label = ("TLS" if tls else "HTTP") + (", --http-bind" if http else "")
        self.slug = re.sub(r"\W+", "-", self.label.lower())
        self.rss, self.peak = [], []
        self.looks, self.look_cpu, self.wakes_look = 0, math.nan, math.nan
        self.wakes, self.between = math.nan, math.nan  # a minute; CPU seconds an hour

    def start(self, version, period):
        tag = f"{self.slug}-{period}"
        self.versions = sidecar.Versions(self.bench.backends.registry, "bench/idle", tag)
        self.versions.move(version)
        watch = Watch(self.peer, self.stage, self.versions.on(self.stage),
                      self.bench.folder / f"idle-{tag}", "--period", period, ca=self.ca,
                      http=self.http)
        watch.published(version)
        return watch

    def look_at_memory(self, watch):
        time.sleep(SETTLE)
        self.rss.append(watch.rss())
        self.peak.append(watch.peak())

    def an_hour(self):
        return self.look_cpu * 3600 / IDLE_PERIOD + self.between

    def as_dict(self):
        return {k: v for k, v in vars(self).items()
                if isinstance(v, (int, float, list)) and k != "http"} | {"an_hour": self.an_hour()}


def bundle(bench, ca):
    """What a sidecar trusts in the field, and the bench's own CA."""
    path = bench.scratch / "bundle.pem"
    if not path.exists():
        path.write_bytes((BUNDLE.read_bytes() if BUNDLE.exists() else b"") + ca.read_bytes())
    return path


def idle(bench, peer):
    """Memory over some rounds; then all side by side for a while, with and without looks."""
    maker = sidecar.Versions(bench.backends.registry, "bench/idle")
    version = maker.make({"model.bin": Content(5, 64 * MIB)})
    ways = [Idle(bench, peer, tls, http) for tls in (False, True) for http in (False, True)]
    for _ in range(min(3, bench.options.rounds)):
        for way in ways:
            with way.start(version, "5m") as watch:
                way.look_at_memory(watch)
    far, near = [], []
    try:
        for way in ways:
            far.append(way.start(version, "5m"))
        for way in ways:
            near.append(way.start(version, f"{PERIOD}s"))
        time.sleep(SETTLE)
        observe(ways, far, near)
    finally:
        for watch in far + near:
            watch.__exit__()
    return ways


def observe(ways, far, near):
    offset = ways[0].bench.backends.plain().log_end()
    before = [(watch.switches(), watch.cpu) for watch in far + near]
    began = time.monotonic()
    time.sleep(IDLE_SECONDS)
    after = [(watch.switches(), watch.cpu) for watch in far + near]
    lasted = time.monotonic() - began
    plain = ways[0].bench.backends.plain()
    plain.seen_since(offset)
    spent = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(before, after)]
    for way, quiet, busy in zip(ways, spent[:len(ways)], spent[len(ways):]):
        way.wakes = quiet[0] * 60 / lasted
        way.between = quiet[1] * 3600 / lasted
        way.looks = len(heads_of(plain.log_path, offset, way.versions))
        if not way.looks:
            raise Failed(f"{way.label}: no look in {IDLE_SECONDS} s at --period {PERIOD}s")
        way.wakes_look = busy[0] / way.looks
        way.look_cpu = busy[1] / way.looks


# ---- what is printed ----------------------------------------------------------------------------


def ms(values):
    return spread([v * 1000 for v in values], "{:.1f}")


def swap_tables(all_swaps):
    first = [[s.peer.name, s.swaps, report.count(s.reads), len(s.wrong),
              spread([gap * 1000 for gap in s.gaps], "{:.3f}"),
              f"{statistics.median(s.each) * 1000:.3f}", f"{s.longest * 1000:.3f}"]
             for s in all_swaps]
    second = [[s.peer.name, *(ms(s.times[how]) for how in ("sync", "hup", "after", "period"))]
              for s in all_swaps]
    return [*report.table(["tool", "swaps", "reads", "failed reads", "gap ms", "one read ms",
                           "longest without a swap ms"], first), "",
            *report.table(["tool", "push to swap, POST /sync: ms", "SIGHUP: ms",
                           f"--period {PERIOD}s, without the wait: ms", "with it: ms"], second)]


def idle_table(by_name):
    rows = [[name, way.label, spread([v / MIB for v in way.rss], "{:.1f}"),
             spread([v / MIB for v in way.peak], "{:.1f}"), f"{way.wakes:.1f}",
             f"{way.wakes_look:.1f}", f"{way.look_cpu * 1000:.1f}", f"{way.an_hour():.2f}"]
            for name, ways in by_name.items() for way in ways]
    return report.table(["tool", "idle sidecar", "RSS MiB", "peak MiB", "wake-ups/min",
                         "wake-ups/look", "CPU ms/look", "CPU s/idle hour"], rows)


def noise(all_swaps, still):
    shares = [share for s in all_swaps for share in s.others]
    if not shares or not still:
        return []
    return [f"Others used {statistics.median(shares):.0%} of the machine (median of the rounds of "
            f"swaps; at most {max(shares):.0%}), {max(still):.0%} beside the idle ones.", ""]


def verdicts(all_swaps, by_name):
    reads, small, still = map(Verdict, ("no failed read", "RSS of an idle sidecar <= 4 MiB",
                                        "no wake-up between looks"))
    mine = next((s for s in all_swaps if s.peer.name == "fetcher"), None)
    if mine:
        reads = Verdict(reads.text, f"{len(mine.wrong)} of {mine.reads:,} in {mine.swaps} swaps",
                        not mine.wrong)
    if ways := by_name.get("fetcher"):
        most = max(max(way.rss) for way in ways) / MIB
        small = Verdict(small.text, f"{most:.1f} MiB", most <= 4)
        wakes = max(way.wakes for way in ways)
        still = Verdict(still.text, f"{wakes:.1f} a minute", wakes == 0)
    return [reads, small, still]


def run(bench, say):
    """Markdown lines, and what goes to the raw numbers."""
    raw, all_swaps, by_name, still = {}, [], {}, []
    for peer in bench.wanted(bench.fetchers):
        raw[peer.name] = found = {"failure": None}
        try:
            swaps = Swaps(bench, peer)
            for number in range(1, bench.options.rounds + 1):
                swaps.round()
                say(f"  round {number}: {peer.name}: {swaps.swaps} swaps, {swaps.reads:,} reads, "
                    f"{len(swaps.wrong)} failed; gap {ms(swaps.gaps)} ms; push to swap "
                    + ", ".join(f"{how} {ms(took)}" for how, took in swaps.times.items()))
            found |= swaps.as_dict()
            all_swaps.append(swaps)
            say(f"  {peer.name}: idle for {IDLE_SECONDS} s")
            with Noise(bench.backends.tls(), still):
                by_name[peer.name] = idle(bench, peer)
            found["idle"] = {way.label: way.as_dict() for way in by_name[peer.name]}
            if swaps.wrong:
                found["failure"] = f"failed reads: {swaps.wrong[:3]}"
        except Failed as e:
            found["failure"] = str(e)
            say(f"  {peer.name} failed: {e}")
    failed = [f"{name}: {found['failure']}." for name, found in raw.items() if found["failure"]]
    return [*swap_tables(all_swaps), "", *idle_table(by_name), "", *noise(all_swaps, still),
            *failed, *([""] if failed else []), *map(str, verdicts(all_swaps, by_name))], raw
