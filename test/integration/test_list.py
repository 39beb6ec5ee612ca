# SPDX-License-Identifier: Apache-2.0
"""pull --list: many references in one run, and --prune of what no line names any more."""

import ctypes
import fcntl
import os
import random
import struct
import threading
import time

import pytest

from lib import oci
from lib.content import Content, data, files_in, tree
from lib.look import holds, last_words, marker, until

MIB = 1 << 20
ONE = {"config.json": b"one", "w/model.bin": Content(31, 2 * MIB)}
TWO = {"config.json": b"two", "v.bin": Content(32, MIB)}
HOUR = 3600
F_OFD_SETLK = 37


@pytest.fixture(scope="module")
def one(registry):
    return oci.push(registry, "list/one", "v1", ONE)


@pytest.fixture(scope="module")
def two(registry):
    return oci.push(registry, "list/deep/two", "v2", TWO)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


@pytest.fixture
def warm(fetcher, root, tmp_path):
    """warm([line, ...], *flags) -> Result of pull --list with --root."""
    count = [0]

    def path(lines):
        count[0] += 1
        file = tmp_path / f"list-{count[0]}"
        file.write_text("".join(line + "\n" for line in lines))
        return file

    def args(lines, flags):
        return ["pull", "--plain-http", "--list", path(lines), "--root", root, *flags]

    def go(lines, *flags, **how):
        return fetcher(*args(lines, flags), **how)
    go.start = lambda lines, *flags, **how: fetcher.start(*args(lines, flags), **how)
    go.path = path
    return go


def place(root, pushed, server=None):
    """Where the rule puts a reference with a tag."""
    host = (server or pushed.registry).host.replace(":", "_")
    return root / host / f"{pushed.repo}@{pushed.tag}"


def named_ago(dest, seconds):
    """As if a list had last named it then."""
    then = time.time() - seconds
    os.utime(dest / ".fetcher" / "listed", (then, then))


def lock(dest):
    """Holds the lock as another fetcher would; close the file to let go."""
    f = open(dest / ".fetcher" / "lock", "r+")
    fcntl.fcntl(f, F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 0, 0))
    return f


def messages(result):
    return [line["msg"] for line in result.log]


def failures(result):
    return [line for line in result.log if line["msg"] == "this line of the list failed"]


# -- pulling -------------------------------------------------------------------------------------


def test_several_references(one, two, warm, root, tmp_path):
    """By the rule, below --root, and anywhere."""
    r = warm(["# warm these", one.ref, f"{one.ref_digest}", f"{two.ref} named/two",
              f"{two.ref}  {tmp_path}/elsewhere   # here"]).ok()
    holds(place(root, one), ONE)
    host = one.registry.host.replace(":", "_")
    holds(root / host / f"{one.repo}@{one.digest.replace(':', '-')}", ONE)
    holds(root / "named" / "two", TWO)
    holds(tmp_path / "elsewhere", TWO)
    done = [line for line in r.log if line["msg"] == "list done"]
    assert len(done) == 1 and (done[0]["ok"], done[0]["failed"]) == (4, 0)
    assert r.out == ""


def test_one_that_is_missing_stops_nobody_else(one, two, warm, root):
    missing = f"{one.registry.host}/{one.repo}:nowhere"
    r = warm([one.ref, missing, two.ref, f"{missing}-2"]).exits(21)
    holds(place(root, one), ONE)
    holds(place(root, two), TWO)
    told = failures(r)
    assert [(line["line"], line["ref"]) for line in told] == [(2, missing), (4, missing + "-2")]
    assert all(line["level"] == "warn" and line["code"] == "not_found" and line["error"] for line in told)
    words = last_words(r)
    assert "2 of 4 lines failed" in words and "line 2" in words and missing in words


def test_the_first_failure_gives_the_code(one, warm, root):
    """A file in the way is 24 or 40; the missing tag behind it is 21."""
    root.mkdir()
    (root / "taken").write_text("a file")
    first = warm([f"{one.ref} taken", f"{one.registry.host}/{one.repo}:nowhere x"])
    assert first.rc in (24, 40), first
    assert "2 of 2 lines failed; line 1" in last_words(first)


def test_second_run_costs_no_blob(one, two, wire, warm, root):
    lines = [one.on(wire), two.on(wire)]
    warm(lines).ok()
    assert wire.body("/blobs/") >= 3 * MIB
    wire.reset()
    r = warm(lines, "--output", "json").ok().json
    assert wire.gets("/blobs/") == [] and wire.gets("/manifests/") == []
    assert [e["upToDate"] for e in r["entries"]] == [True, True]
    assert [e["downloaded"] for e in r["entries"]] == [0, 0]


def test_summary(one, two, warm, root):
    lines = [one.ref, "", f"{one.registry.host}/{one.repo}:nowhere", f"{two.ref} two"]
    r = warm(lines, "--output", "json").exits(21)
    assert len(r.out.splitlines()) == 1
    s = r.json
    assert list(s) == ["list", "entries", "ok", "failed", "pruned"]
    assert (s["ok"], s["failed"]) == (2, 1)
    assert s["pruned"] == {"versions": 0, "directories": 0, "bytes": 0}
    for e in s["entries"]:
        assert list(e) == ["line", "ref", "dest", "code", "digest", "upToDate", "downloaded", "bytes",
                           "durationMs", "error"]
    a, b, c = s["entries"]
    size = sum(len(v) for v in ONE.values())
    assert (a["line"], a["ref"], a["dest"]) == (1, one.ref, str(place(root, one)))
    assert (a["digest"], a["upToDate"], a["code"]) == (one.digest, False, 0)
    assert (a["downloaded"], a["bytes"], a["error"]) == (size, size, None)
    assert (b["line"], b["code"], b["digest"], b["bytes"]) == (3, 21, None, 0) and b["error"]
    assert (c["line"], c["dest"]) == (4, str(root / "two"))


@pytest.mark.parametrize("line, words", [
    ("REF ../out", '".."'), ("REF a/../../out", '".."'), ("REF a b", "too much"), ("REF /", "root directory"),
    ("nonsense x", "bad reference"), ("REF x\nREF x", "named again"), ("REF x\nREF x/y", "inside"),
])
def test_bad_lines_end_the_run_before_it_starts(one, wire, warm, root, line, words):
    good = f"{one.on(wire)} good\n"
    r = warm([good + line.replace("REF", one.on(wire))], "--random-delay", "1h", timeout=20).exits(2)
    number = 2 + line.count("\n")
    assert f"line {number}" in last_words(r) and words in last_words(r)
    assert wire.requests == [] and not root.exists()


def test_lists_that_cannot_be_read(fetcher, tmp_path):
    def run(path):
        return fetcher("pull", "--list", path, "--root", tmp_path / "root")
    last_words(run(tmp_path / "none").exits(40))
    last_words(run(tmp_path).exits(40))
    os.mkfifo(tmp_path / "fifo")
    last_words(run(tmp_path / "fifo").exits(40))
    (tmp_path / "large").write_bytes(b"#" * (MIB + 1))
    assert "1 MiB" in last_words(run(tmp_path / "large").exits(2))
    (tmp_path / "empty").write_bytes(b"")
    run(tmp_path / "empty").ok()


def test_deadline_bounds_the_whole_run(faults, one, warm, root):
    """The line that hangs ends with 31, those behind it are not tried, and say so."""
    body = data(5, 3 * MIB)
    art = faults.artifact({"w": body})
    go = threading.Event()
    faults.rule("blob", hold_at=(1000, go))
    r = warm([art.ref, one.ref], "--deadline", "2s", "--output", "json", timeout=30).exits(31)
    go.set()
    assert [e["code"] for e in r.json["entries"]] == [31, 31]
    assert "not tried" in failures(r)[1]["error"]
    assert marker(place(root, one)) is None
    faults.clear()
    warm([art.ref, one.ref], "--deadline", "5m").ok()
    holds(place(root, one), ONE)


def test_deadline_while_waiting_for_a_lock(one, warm, root):
    warm([f"{one.registry.host}/{one.repo}:nowhere x"]).exits(21)
    (root / "x" / ".fetcher").mkdir(parents=True)
    (root / "x" / ".fetcher" / "lock").touch()
    with lock(root / "x"):
        r = warm([f"{one.ref} x"], "--deadline", "1s", timeout=30).exits(31)
    assert len(failures(r)) == 1


def test_sigterm_in_the_middle(faults, one, warm, root):
    body = data(6, 3 * MIB)
    art = faults.artifact({"w": body})
    go = threading.Event()
    faults.rule("blob", hold_at=(1000, go))
    run = warm.start([one.ref, art.ref, one.ref_digest], "--output", "json")
    assert faults.wait(lambda f: f.stalled), run.err()
    r = run.terminate(5).exits(143)
    go.set()
    assert r.out == "" and failures(r) == []
    last_words(r)
    holds(place(root, one), ONE)
    faults.clear()
    warm([one.ref, art.ref]).ok()


def test_sigterm_during_the_random_delay(one, wire, warm, root):
    run = warm.start([one.on(wire)], "--random-delay", "24h")
    until(lambda: "waiting before the start" in run.err())
    run.terminate(5).exits(143)
    assert wire.requests == [] and not root.exists()


def test_random_delay_ends(one, warm, root):
    warm([one.ref], "--random-delay", "300ms").ok()
    holds(place(root, one), ONE)


# -- old versions --------------------------------------------------------------------------------


@pytest.fixture
def moved(registry, warm, root, request):
    """A tag that was pulled (layout versions) and then moved twice: (lines, [pushed], dest)."""
    repo = "list/moved-" + "".join(c if c.isalnum() else "-" for c in request.node.name).strip("-").lower()
    seen = []
    for i in range(3):
        files = {"c": b"%d" % i, "w": Content(40 + i, MIB)}
        seen.append(oci.push(registry, repo, "stable", files))
        if i < 2:
            warm([seen[0].ref], "--layout", "versions").ok()
            time.sleep(0.01)  # ages that differ
    return [seen[0].ref], seen, place(root, seen[0])


def versions(dest):
    folder = dest / ".fetcher" / "versions"
    return {p.name.replace("sha256-", "sha256:") for p in folder.iterdir()} if folder.exists() else set()


def test_old_versions_stay_without_prune(moved, warm):
    lines, seen, dest = moved
    r = warm(lines, "--layout", "versions", "--output", "json").ok().json
    assert versions(dest) == {p.digest for p in seen}
    assert r["pruned"]["versions"] == 0


def test_prune_after_the_tag_moved(moved, warm):
    lines, seen, dest = moved
    r = warm(lines, "--layout", "versions", "--prune", "--output", "json").ok().json
    assert versions(dest) == {seen[2].digest}
    assert r["pruned"]["versions"] == 2 and r["pruned"]["bytes"] >= 2 * MIB
    assert r["pruned"]["directories"] == 0
    assert (dest / "current" / "c").read_bytes() == b"2"


def test_prune_keeps_what_it_is_told_to(moved, warm):
    lines, seen, dest = moved
    warm(lines, "--layout", "versions", "--prune", "--stale-timeout", "1h").ok()
    assert versions(dest) == {p.digest for p in seen}
    r = warm(lines, "--layout", "versions", "--prune", "--keep-versions", "1", "--output", "json").ok().json
    assert versions(dest) == {seen[1].digest, seen[2].digest}
    assert r["pruned"]["versions"] == 1


def test_a_locked_dest_is_not_pruned(moved, warm):
    lines, seen, dest = moved
    warm(lines, "--layout", "versions").ok()
    with lock(dest):
        r = warm(lines, "--layout", "versions", "--prune", "--output", "json", timeout=30).ok()
    assert r.json["pruned"]["versions"] == 0 and versions(dest) == {p.digest for p in seen}
    assert [line for line in r.log if line["level"] == "warn"] == []
    warm(lines, "--layout", "versions", "--prune").ok()
    assert versions(dest) == {seen[2].digest}


# -- directories that no line names --------------------------------------------------------------


def test_unnamed_directory_goes_after_its_time(one, two, warm, root):
    warm([one.ref, two.ref]).ok()
    gone = place(root, two)
    for flags in ([], ["--prune", "--stale-timeout", "1h"]):
        warm([one.ref], *flags).ok()
        holds(gone, TWO)
    named_ago(gone, 2 * HOUR)
    r = warm([one.ref], "--prune", "--stale-timeout", "1h", "--output", "json").ok()
    assert not gone.exists()
    assert r.json["pruned"]["directories"] == 1 and r.json["pruned"]["bytes"] >= MIB
    # so are the directories that only it needed, and no others
    assert not (root / two.registry.host.replace(":", "_") / "list" / "deep").exists()
    holds(place(root, one), ONE)
    warm([one.ref, two.ref], "--prune").ok()
    holds(gone, TWO)


def test_the_last_one_takes_its_host_along_but_not_the_root(one, two, warm, root):
    warm([one.ref]).ok()
    warm([f"{two.ref} named/two"], "--prune").ok()
    assert sorted(p.name for p in root.iterdir()) == ["named"]
    holds(root / "named" / "two", TWO)


@pytest.mark.parametrize("layout", ["flat", "versions"])
def test_nothing_of_ours_is_left(one, two, warm, root, layout):
    warm([one.ref, two.ref], "--layout", layout).ok()
    warm([one.ref], "--prune", "--layout", layout).ok()
    assert not place(root, two).exists()
    holds(place(root, one) / ("current" if layout == "versions" else "."), ONE)


def test_every_run_says_that_it_was_named(one, two, warm, root):
    """Up to date, or failed: named is named."""
    warm([one.ref, two.ref]).ok()
    for dest in (place(root, one), place(root, two)):
        named_ago(dest, 2 * HOUR)
    with lock(place(root, two)):
        (place(root, two) / "v.bin").unlink()
        warm([one.ref, two.ref], "--lock-timeout", "0").exits(41)
    for dest in (place(root, one), place(root, two)):
        assert time.time() - (dest / ".fetcher" / "listed").stat().st_mtime < HOUR


def test_without_that_note_the_marker_tells(one, two, fetcher, warm, root):
    gone = place(root, two)
    fetcher.pull(two.ref, gone).ok()
    assert not (gone / ".fetcher" / "listed").exists()
    warm([one.ref], "--prune", "--stale-timeout", "1h").ok()
    holds(gone, TWO)
    then = time.time() - 2 * HOUR
    os.utime(gone / ".fetcher" / "ready.json", (then, then))
    warm([one.ref], "--prune", "--stale-timeout", "1h").ok()
    assert not gone.exists()


def test_a_clock_that_went_back_makes_nothing_old(one, two, warm, root):
    warm([one.ref, two.ref]).ok()
    named_ago(place(root, two), -30 * 24 * HOUR)
    warm([one.ref], "--prune", "--stale-timeout", "1s").ok()
    holds(place(root, two), TWO)


def test_what_an_interrupted_pull_left_goes_too(faults, one, warm, root):
    """No marker, no file, half a blob."""
    art = faults.artifact({"w": data(7, 3 * MIB)})
    go = threading.Event()
    faults.rule("blob", hold_at=(MIB, go))
    run = warm.start([art.ref])
    assert faults.wait(lambda f: f.stalled), run.err()
    run.kill()
    go.set()
    host = art.ref.split("/")[0].replace(":", "_")
    assert (root / host).exists()
    warm([one.ref], "--prune", "--stale-timeout", "1h").ok()
    assert (root / host).exists()
    warm([one.ref], "--prune").ok()
    assert not (root / host).exists()


def test_keep_bytes(registry, one, warm, root):
    """The oldest go until the rest is small enough; what is named does not count."""
    pushed = [oci.push(registry, f"list/kept-{i}", "v1", {"w": Content(50 + i, MIB)}) for i in range(4)]
    warm([one.ref, *(p.ref for p in pushed)]).ok()
    order = [2, 0, 3, 1]
    for age, i in enumerate(order):
        named_ago(place(root, pushed[i]), 1000 - 100 * age)
    flags = ["--prune", "--stale-timeout", "1h", "--keep-bytes"]
    warm([one.ref], *flags, "100MiB").ok()
    assert all(place(root, p).exists() for p in pushed)
    r = warm([one.ref], *flags, str(2 * MIB + MIB // 2), "--output", "json").ok().json
    assert r["pruned"]["directories"] == 2
    assert [place(root, pushed[i]).exists() for i in order] == [False, False, True, True]
    holds(place(root, one), ONE)
    # one that is locked stays, and the next goes in its place
    with lock(place(root, pushed[3])):
        warm([one.ref], *flags, str(MIB + MIB // 2)).ok()
    assert [place(root, pushed[i]).exists() for i in order] == [False, False, True, False]


@pytest.mark.parametrize("layout", ["flat", "versions"])
def test_foreign_files_survive(one, two, warm, root, layout):
    warm([one.ref, two.ref], "--layout", layout).ok()
    gone = place(root, one)
    (gone / "notes.txt").write_text("mine")
    (gone / "w").mkdir(exist_ok=True)
    (gone / "w" / "mine.bin").write_bytes(b"mine")
    if layout == "flat":
        (gone / "config.json").write_bytes(b"edited")
    warm([two.ref], "--prune", "--layout", layout).ok()
    left = {"notes.txt", "w/mine.bin"} | ({"config.json"} if layout == "flat" else set())
    assert set(files_in(gone)) == left and not (gone / ".fetcher").exists()
    # nothing is left there that another run could take for ours
    r = warm([two.ref], "--prune", "--layout", layout, "--output", "json").ok().json
    assert r["pruned"]["directories"] == 0 and set(files_in(gone)) == left


def test_a_link_named_current_that_is_not_ours(one, two, warm, root):
    warm([one.ref, two.ref]).ok()
    (place(root, one) / "current").symlink_to("/somewhere")
    warm([two.ref], "--prune").ok()
    assert os.readlink(place(root, one) / "current") == "/somewhere"


def test_leased_version_survives(one, two, fetcher, warm, root):
    """A server that was started through `fetcher wait` holds its version."""
    warm([one.ref, two.ref], "--layout", "versions").ok()
    used = place(root, one)
    reader = fetcher.start("wait", used, "--", "/bin/sleep", "600")
    until(lambda: open(f"/proc/{reader.pid}/comm").read().strip() == "sleep")
    before = tree(used)
    r = warm([two.ref], "--prune", "--layout", "versions", "--keep-bytes", "1", "--output", "json").ok()
    assert r.json["pruned"]["directories"] == 0
    assert [line for line in r.log if line["level"] == "warn"] == []
    assert tree(used) == before and marker(used)
    reader.kill()
    warm([two.ref], "--prune", "--layout", "versions").ok()
    assert not used.exists()


def test_locked_directory_survives(one, two, warm, root):
    warm([one.ref, two.ref]).ok()
    with lock(place(root, one)):
        r = warm([two.ref], "--prune", "--keep-bytes", "1", timeout=30).ok()
        assert [line for line in r.log if line["level"] == "warn"] == []
    holds(place(root, one), ONE)
    warm([two.ref], "--prune").ok()
    assert not place(root, one).exists()


def test_a_list_without_a_line_prunes_nothing(one, warm, root):
    """A file that was emptied by mistake must not empty the node."""
    warm([one.ref]).ok()
    r = warm(["# nothing"], "--prune").ok()
    assert any(line["level"] == "warn" and "nothing is pruned" in line["msg"] for line in r.log)
    holds(place(root, one), ONE)


def test_only_directories_of_the_rule(one, two, fetcher, warm, root):
    """What a person or another tool put below --root is not ours to judge."""
    host = two.registry.host.replace(":", "_")
    mine = [root / "llama", root / "team" / "x@v1", root / host / "x", root / host / "Upper@v1",
            root / host / "a@v1" / "b@v2", root / ".hidden" / "a@v1"]
    for dest in mine:
        fetcher.pull(two.ref, dest).ok()
    (root / host / "empty@v1").mkdir()
    (root / host / "other@v1").mkdir()
    (root / host / "other@v1" / "file").write_text("x")
    warm([one.ref], "--prune").ok()
    for dest in mine:
        holds(dest, TWO)
    assert (root / host / "empty@v1").exists() and (root / host / "other@v1" / "file").exists()


def test_files_of_an_artifact_are_not_looked_into(registry, one, warm, root):
    """A model may hold names that look like a DEST of the rule."""
    body = b"{}"
    layers = [oci.titled(body, "x@v1/.fetcher/ready.json"), oci.titled(b"w", "x@v1/w")]
    p = registry.api.put_manifest("list/trap", "v1", oci.manifest(layers), blobs=[body, b"w"])
    lines = [one.ref, f"{p.ref} models.example/sub"]
    for _ in range(2):
        warm(lines, "--prune").ok()
        assert (root / "models.example" / "sub" / "x@v1" / ".fetcher" / "ready.json").read_bytes() == body


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["flat", "versions"])
def test_kills_while_removing(registry, one, fetcher, warm, root, layout):
    """kill -9 at random moments of a removal: a marker means that all is there, and the next run
    removes what is left, but for the foreign file."""
    files = {f"d{i % 7}/{i:03d}": b"file %d" % i for i in range(200)}
    layers = [oci.titled(v, n) for n, v in files.items()]
    p = registry.api.put_manifest("list/kills", "v1", oci.manifest(layers), blobs=list(files.values()))
    gone, chance = place(root, p), random.Random(20260102)
    halves = 0
    for _ in range(6):
        warm([one.ref, p.ref], "--layout", layout, "--fsync", "never").ok()
        (gone / "d1").mkdir(exist_ok=True)
        (gone / "d1" / "mine").write_text("mine")
        # each removal in several parts
        for _ in range(4):
            run = warm.start([one.ref], "--prune", "--layout", layout)
            until(lambda: not run.alive() or "up to date" in run.err(), pause=0.0005)
            time.sleep(chance.random() * 0.006)
            run.kill()
            if not (gone / ".fetcher" / "ready.json").exists():
                break
            holds(gone / marker(gone)["path"], {**files, **({"d1/mine": b"mine"} if layout == "flat" else {})})
        halves += (gone / ".fetcher").exists()
        warm([one.ref], "--prune", "--layout", layout).ok()
        assert set(tree(gone, hidden=True)) == {"d1", "d1/mine"}
    print(f"{halves} of 6 removals were cut")


# -- hostile neighbours --------------------------------------------------------------------------


def test_links_lead_nowhere(one, two, fetcher, warm, root, tmp_path):
    """Directories of the rule that are links, or lie behind one."""
    outside = tmp_path / "outside"
    host = two.registry.host.replace(":", "_")
    for dest in (outside / "x@v1", outside / "host" / "y@v1"):
        fetcher.pull(two.ref, dest).ok()
    (root / host).mkdir(parents=True)
    (root / host / "x@v1").symlink_to(outside / "x@v1")
    (root / host / "repo").symlink_to(outside / "host")
    (root / "evil.example").symlink_to(outside / "host")
    before = tree(outside, hidden=True)
    warm([one.ref], "--prune").ok()
    assert tree(outside, hidden=True) == before


def test_links_inside_what_is_removed(one, two, warm, root, tmp_path):
    """.fetcher, its parts and the files' directories swapped for links to the outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    keep = outside / "keep"
    keep.mkdir()
    (keep / "file").write_text("x")
    warm([one.ref, two.ref]).ok()
    gone = place(root, one)
    # the very inode that meta knows, behind a link
    (gone / "w").rename(outside / "w")
    (gone / "w").symlink_to(outside / "w")
    for name in ("versions", "meta-2", "partial/x", "previous.json", "listed"):
        path = gone / ".fetcher" / name
        if path.exists():
            path.unlink()
        path.symlink_to(keep)
    warm([two.ref], "--prune").ok()
    assert not (gone / ".fetcher").exists()
    assert (outside / "w" / "model.bin").stat().st_size == 2 * MIB and (keep / "file").exists()


def test_fetcher_directory_that_is_a_link(one, two, warm, root, tmp_path):
    warm([one.ref, two.ref]).ok()
    outside = tmp_path / "outside"
    (place(root, one) / ".fetcher").rename(outside)
    (place(root, one) / ".fetcher").symlink_to(outside)
    before = tree(outside, hidden=True)
    warm([two.ref], "--prune").ok()
    assert tree(outside, hidden=True) == before and (place(root, one) / "config.json").exists()


def test_named_by_another_path(one, two, warm, root, tmp_path):
    """A DEST that a line names through a link is named."""
    warm([one.ref, two.ref]).ok()
    (tmp_path / "alias").symlink_to(root)
    there = tmp_path / "alias" / place(root, one).relative_to(root)
    warm([f"{one.ref} {there}", two.ref], "--prune").ok()
    holds(place(root, one), ONE)


def test_swapped_while_it_runs(one, two, fetcher, warm, root, tmp_path):
    """A neighbour who swaps a directory for a link again and again: nothing outside is touched,
    though it has the same age. The real one is locked, so that it stays for all rounds."""
    outside = tmp_path / "outside"
    host = root / two.registry.host.replace(":", "_")
    for dest in (outside / "x@v1", host / "repo" / "x@v1"):
        fetcher.pull(two.ref, dest).ok()
        os.utime(dest / ".fetcher" / "ready.json", (1000, 1000))
    before = tree(outside, hidden=True)
    libc = ctypes.CDLL(None, use_errno=True)
    (host / "swap").symlink_to(outside)
    done = threading.Event()
    paths = [os.fsencode(host / "repo"), os.fsencode(host / "swap")]

    def swap():
        while not done.is_set():
            libc.renameat2(-100, paths[0], -100, paths[1], 2)  # RENAME_EXCHANGE
            time.sleep(0)
    held = lock(host / "repo" / "x@v1")
    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(60):
            warm([one.ref], "--prune").ok()
    finally:
        done.set()
        thread.join()
        held.close()
    assert tree(outside, hidden=True) == before
