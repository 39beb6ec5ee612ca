#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make soak: one `fetcher watch` through 10,000 swaps. Memory and descriptors must stay where they were, readers
must see whole versions only, and who is notified must hear of the last one.

usage: soak.py [SWAPS]

Each swap is a PUT of a manifest that was never there before, and POST /sync. Two of its files are fetched, one is
linked. A line every tenth of the way; exit 0 only if all is well.
"""
import hashlib
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "integration"))

from lib import oci  # noqa: E402
from lib.client import Fetcher  # noqa: E402
from lib.content import data  # noqa: E402
from lib.look import marker, until  # noqa: E402
from lib.registry import Registry  # noqa: E402
from lib.sidecar import ANY, Sidecar, Version, Versions, Webhook  # noqa: E402

SWAPS = 10_000
SETS = 25               # of files; the manifests around them are all different
KEEP = 2
GROWTH = 256            # KiB after the first tenth: 29 bytes a swap


def files(n):
    return {"config.json": b'{"n": %d}' % n, "w-1.bin": data(n, 10_000), "w-2.bin": data(0, 20_000), "empty": b""}


class Reader(threading.Thread):
    """A model server that looks again and again: resolves `current` once and reads all files of what it found, then
    one file straight through the link. expected: {name of the version's directory: {file: bytes}}."""

    def __init__(self, dest, expected):
        super().__init__(daemon=True)
        self.dest = dest
        self.expected = expected
        self.wrong = []
        self.rounds = 0
        self.stop = threading.Event()

    def one(self):
        base = os.path.realpath(self.dest / "current")
        want = self.expected.get(os.path.basename(base))
        found = {name: pathlib.Path(base, name).read_bytes() for name in os.listdir(base)}
        if found != want:
            self.wrong.append(f"{base} holds what is not its own")
        if not re.fullmatch(rb'\{"n": \d+\}', (self.dest / "current" / "config.json").read_bytes()):
            self.wrong.append("config.json is not whole")
        if marker(self.dest)["digest"].replace(":", "-") not in self.expected:
            self.wrong.append("the marker names what was never pushed")

    def run(self):
        while not self.stop.is_set():
            try:
                self.one()
            except Exception as e:  # a reader that dies unnoticed would see nothing wrong
                self.wrong.append(repr(e))
            self.rounds += 1
            time.sleep(0.001)

    def next_round(self):
        wanted = self.rounds + 2    # one that began from now on is complete
        until(lambda: self.rounds >= wanted or not self.is_alive(), 60, 0.0005)


class Tags:
    """Moves the tag to a manifest that is new, of files that the registry has."""

    def __init__(self, registry):
        self.versions = Versions(registry, "soak/model")
        self.made = [self.versions.make(files(n)) for n in range(SETS)]
        self.expected = {}

    def move(self, n):
        old = self.made[n % SETS]
        layers = [oci.titled(value, name) for name, value in old.files.items()]
        body = json.dumps(oci.manifest(layers, annotations={"soak": str(n)})).encode()
        version = Version("sha256:" + hashlib.sha256(body).hexdigest(), old.files, body)
        self.expected[version.leaf] = old.files
        return self.versions.move(version)


def footprint(sidecar):
    """KiB resident (by smaps_rollup, which is exact), descriptors, threads; at rest."""
    sidecar.until(lambda: sidecar.status()["phase"] == "idle" and len(sidecar.versions()) == KEEP + 1)
    few = [(sidecar.fds(), sidecar.threads()) for _ in range(40) if not time.sleep(0.005)]
    text = pathlib.Path(f"/proc/{sidecar.pid}/smaps_rollup").read_text()
    return (int(re.search(r"\nRss:\s+(\d+)", text)[1]), min(x[0] for x in few), min(x[1] for x in few))


def soak(swaps, folder, sidecar, tags, webhook):
    """What went wrong, as lines."""
    tenth = max(1, swaps // 10)
    wrong, first, began = [], None, time.monotonic()
    reader = Reader(folder / "dest", tags.expected)
    reader.start()
    for n in range(1, swaps + 1):
        version = tags.move(n)
        assert sidecar.get("/sync", method="POST")[0] == 202
        assert sidecar.published(version)["generation"] == n + 1
        reader.next_round()    # it never falls behind by more versions than are kept
        if n % tenth == 0:
            del webhook.seen[:-1]
            now = footprint(sidecar)
            first = first or now
            print(f"soak: {n:6} swaps, {time.monotonic() - began:5.0f} s: {now[0]} KiB resident, {now[1]} descriptors, "
                  f"{now[2]} threads; {reader.rounds} reads, {len(reader.wrong)} wrong", flush=True)
            if now[0] > first[0] + GROWTH or now[1:] != first[1:]:
                wrong.append(f"after {n} swaps {now} (KiB, descriptors, threads), after {tenth} {first}")
    reader.stop.set()
    reader.join(60)
    wrong += reader.wrong[:9]
    try:
        until(lambda: webhook.seen and webhook.seen[-1]["json"]["digest"] == version.digest, 60)
    except AssertionError:
        wrong.append("the webhook has not heard of the last version")
    failed = sidecar.metrics()['fetcher_sync_total{result="error"}']
    if failed:
        wrong.append(f"{failed:.0f} looks failed")
    return wrong


def main():
    swaps = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1] else SWAPS
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fetcher-soak-", dir=base))
    try:
        with Registry(folder / "registry") as registry, Webhook() as webhook:
            tags = Tags(registry)
            tags.move(0)
            with Sidecar(Fetcher(folder / "run"), tags.versions.ref, folder / "dest", "--period", "1h", "-q",
                         "--keep-versions", KEEP, "--touch-file", folder / "told", "--webhook-url", webhook.url,
                         http=True) as sidecar:
                sidecar.until(lambda: sidecar.marker)
                wrong = soak(swaps, folder, sidecar, tags, webhook)
                sidecar.terminate(ANY)
                wrong += [f"it said: {line['msg']}" for line in sidecar.log[:9] if line["level"] != "error"]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for line in wrong:
        print(f"soak: {line}")
    print(f"soak: {swaps} swaps, {len(wrong)} things wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
