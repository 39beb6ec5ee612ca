# SPDX-License-Identifier: Apache-2.0
"""What a test looks at after a pull: the marker, the files, the last words, the partial folder."""

import hashlib
import json
import os
import pathlib
import threading
import time

from .content import Content, file_sha256, files_in

KEYS = ["schema", "ref", "digest", "mediaType", "artifactType", "path", "files", "bytes",
        "downloaded", "publishedAt", "durationMs", "previous", "generation", "fetcher"]


def marker(dest):
    """The ready marker as a dict, or None."""
    try:
        return json.loads((pathlib.Path(dest) / ".fetcher" / "ready.json").read_text())
    except FileNotFoundError:
        return None


def sha(value):
    if isinstance(value, Content):
        return value.sha256
    return hashlib.sha256(value.encode() if isinstance(value, str) else value).hexdigest()


def holds(dest, files):
    """Asserts that exactly these files ({name: bytes | str | Content}) stand below dest."""
    seen = files_in(dest)
    want = {name: sha(value) for name, value in files.items()}
    assert seen == want, {"missing": sorted(set(want) - set(seen))[:9],
                          "extra": sorted(set(seen) - set(want))[:9],
                          "wrong": [n for n in want if n in seen and seen[n] != want[n]][:9]}


def nothing_published(dest):
    """Asserts that no file and no marker stands there."""
    assert marker(dest) is None
    assert files_in(dest) == {}


def partials(dest):
    """{name: size} of what lies in the partial folder."""
    folder = pathlib.Path(dest) / ".fetcher" / "partial"
    return {p.name: p.stat().st_size for p in folder.rglob("*") if p.is_file()} \
        if folder.exists() else {}


def last_words(result):
    """The message of the line that says what failed (JSON log)."""
    lines = [line for line in result.log if line["level"] == "error"]
    assert len(lines) == 1, f"{len(lines)} error lines\n{result}"
    assert lines[0]["code"] == result.rc, result
    return lines[0]["msg"]


def until(ready, timeout=30, pause=0.005):
    """Waits for ready() to be true; its value."""
    give_up = time.monotonic() + timeout
    while True:
        value = ready()
        if value:
            return value
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(pause)


class Reader(threading.Thread):
    """Reads everything below `root` again and again, as a model server would, and notes what no
    reader may ever see.  with Reader(root, {name: sha256 or set of them}) as r: ...; r.wrong == []

    complete(marker) -> names that must all stand there once that marker was read.
    """

    def __init__(self, root, known, complete=None):
        super().__init__(daemon=True)
        self.root = pathlib.Path(root)
        self.known = {k: v if isinstance(v, (set, frozenset)) else {v} for k, v in known.items()}
        self.complete = complete
        self.wrong = []
        self.seen = set()
        self.rounds = 0
        self._done = threading.Event()

    def _file(self, name):
        path = self.root / name
        try:
            digest = file_sha256(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        self.seen.add(name)
        if digest not in self.known.get(name, ()):
            self.wrong.append((name, digest, os.path.getsize(path) if path.exists() else None))

    def _round(self):
        mark = None
        try:
            mark = marker(self.root)
        except ValueError as e:
            self.wrong.append(("marker", str(e)))
        if mark and self.complete:
            base = self.root / mark["path"]
            missing = [n for n in self.complete(mark) if not (base / n).exists()]
            # The marker may have gone meanwhile: then the files may go as well.
            if missing and marker(self.root) == mark:
                self.wrong.append(("marker before files", missing))
        for base, dirs, files in os.walk(self.root):
            if ".fetcher" in dirs:
                dirs.remove(".fetcher")
            for name in files:
                self._file(os.path.relpath(os.path.join(base, name), self.root))
        self.rounds += 1

    def run(self):
        while not self._done.is_set():
            self._round()
            time.sleep(0.001)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self._done.set()
        self.join(60)
