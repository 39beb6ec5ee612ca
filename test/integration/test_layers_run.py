# SPDX-License-Identifier: Apache-2.0
"""While layers are unpacked: kills and what resumes, signals, servers that misbehave, wrong bytes, full disks, memory, bytes
written, readers, swaps. Numbers such as [L12] are the cases of the reference on artifact layouts."""

import hashlib
import os
import pathlib
import platform
import random
import shutil
import signal
import subprocess
import threading
import time

import pytest

from faultserver import Presign
from lib import oci, producers
from lib.client import binary
from lib.content import Content, data, files_in
from lib.look import Reader, holds, last_words, marker, nothing_published, partials, sha, until
from lib.oci import descriptor
from lib.producers import MIB, Made, directory, entry, pack, serve, tar, tar_of, weights
from lib.relay import Relay
from lib.sidecar import ANY, MappedReader, Sidecar, Version
from test_volume import tmpfs  # noqa: F401  (a fixture)

# An exit within a second is promised; a loaded test machine gets a second more.
STOP = 2.0
SMALL = ("--range-size", "512KiB", "--memory-budget", "8MiB", "--concurrency", "4")
# What a kill can cost of a plain tar: half of the budget is for windows; a checkpoint is due each 8 MiB
LOST = 4 * MIB + 8 * MIB + 4 * (MIB // 2)


def layers_of(*tars, packing="tar", kind="dataset"):
    """A ModelPack artifact of {path: bytes} dicts, each a layer; packing may be a list."""
    packings = [packing] * len(tars) if isinstance(packing, str) else packing
    blobs = [pack(tar_of(x), p) for x, p in zip(tars, packings)]
    layers = [descriptor(b, f"application/vnd.cncf.model.{kind}.v1.{p}") for b, p in zip(blobs, packings)]
    files = {n: b for x in tars for n, b in x.items()}
    return Made(oci.manifest(layers, artifact_type=oci.MODELPACK), blobs, files, unpacked=len(blobs))


def work(dest):
    """Names in the partial directory."""
    folder = pathlib.Path(dest) / ".fetcher/partial"
    return {p.name for p in folder.iterdir()} if folder.exists() else set()


def unpacked(dest):
    """Bytes of files that lie in tree directories."""
    total = 0
    for base, _, names in os.walk(pathlib.Path(dest) / ".fetcher/partial"):
        for name in names if ".tree" in base else ():
            try:
                total += os.lstat(os.path.join(base, name)).st_size
            except FileNotFoundError:
                pass
    return total


def body_of(faults, digest):
    return sum(r.sent for r in faults.gets("blob") if r.digest == digest)


def start(fetcher, ref, dest, *flags):
    return fetcher.start("pull", "--plain-http", *SMALL, *flags, ref, dest)


# -- kill -9 -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [[96], [3] * 32, [1, 80, 1, 14]], ids=["one-file", "many", "mixed"])
def test_a_plain_tar_goes_on_in_mid_layer(registry, fetcher, dest, sizes):
    """kill -9 twice, also inside an entry: the bytes of all runs are the layer's, and what lay in windows or behind the last
    checkpoint. [L41]"""
    files = {f"d{i % 3}/w{i}.bin": Content(i, n * MIB).bytes() for i, n in enumerate(sizes)}
    made = layers_of(files)
    p = producers.put(registry, f"run/kill-{len(sizes)}", "v1", made)
    total, kills = len(made.blobs[0]), (32 * MIB, 72 * MIB)
    with Relay(registry, limit=160 * MIB) as slow:
        for at in kills:
            run = start(fetcher, p.on(slow), dest, "--fsync", "never")
            until(lambda: unpacked(dest) >= at or not run.alive())
            assert run.alive(), run.err()
            run.kill()
            nothing_published(dest)
        slow.limit = None
        fetcher.pull(p.on(slow), dest, *SMALL).ok()
        used = slow.body("/blobs/")
    holds(dest, files)
    print(f"{used / total:.3f} x the layer on the wire, {(used - total) / len(kills) / MIB:.1f} MiB a kill")
    assert used <= 1.05 * total + len(kills) * LOST, f"{used / total:.3f} x"  # starting over would take 2.1 x
    assert work(dest) == set()
    fetcher("verify", dest).ok()


@pytest.mark.parametrize("packing", producers.PACKINGS)
def test_finished_layers_stay(faults, fetcher, dest, packing):
    """Killed in the second of two layers: only that one is fetched again; compressed ones from their start. [L41] [L53]"""
    first, second = {"a/one.bin": weights(1, 3 * MIB)}, {"b/two.bin": weights(2, (24 if packing == "tar" else 6) * MIB)}
    made = layers_of(first, second, packing=packing)
    ref = serve(faults, made)
    go = threading.Event()
    half = len(made.blobs[1]) // 2
    faults.rule(made.layers[1]["digest"], hold_at=(half, go), nth=1)
    run = start(fetcher, ref, dest, "--concurrency", "2", "--range-size", "64MiB")
    assert faults.wait(lambda f: f.stalled), run.err()
    records = dest / ".fetcher/layers"
    until(lambda: records.exists() and len(list(records.iterdir())) == 1)
    until(lambda: unpacked(dest) >= 3 * MIB + half // 2)
    until(lambda: packing != "tar" or list(dest.glob(".fetcher/partial/*.tree-journal")))
    run.kill()
    go.set()
    faults.clear()
    nothing_published(dest)
    faults.forget()
    fetcher.pull(ref, dest, *SMALL).ok()
    holds(dest, made.files)
    assert body_of(faults, made.layers[0]["digest"]) == 0
    again = body_of(faults, made.layers[1]["digest"])
    assert again <= len(made.blobs[1])
    assert (again < len(made.blobs[1])) == (packing == "tar"), again / len(made.blobs[1])
    assert work(dest) == set()


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["flat", "versions"])
def test_kills_at_random(registry, wire, fetcher, dest, layout):
    """Raw files, all packings, and an image's version after that: nothing wrong is ever seen, the end is right. [L41]"""
    files = producers.model(size=2 * MIB)
    one = layers_of({n: b for n, b in files.items() if n.endswith("safetensors")}, {"t/tok": b"t", "empty": b""},
                    {"z/w.bin": weights(5, 4 * MIB)}, packing=["tar", "tar+gzip", "tar+zstd"])
    raw = oci.modelpack(weights(6, 2 * MIB), "raw.bin")
    one.manifest["layers"].append(raw)
    one.blobs.append(weights(6, 2 * MIB))
    one.files["raw.bin"] = weights(6, 2 * MIB)
    two = producers.modelcar(files, "tar+zstd")
    pushed = [(producers.put(registry, "run/random", f"v{i}", m), m) for i, m in enumerate((one, two))]
    known = {}
    for _, m in pushed:
        for n, b in m.files.items():
            known.setdefault(n, set()).add(sha(b))
            known.setdefault("current/" + n, set()).add(sha(b))
    chance = random.Random(4)
    # layout versions: link and marker are two renames, and a kill may come between them
    complete = (lambda m: list((one if m["digest"] == pushed[0][0].digest else two).files)) if layout == "flat" else None
    with Reader(dest, known, complete) as reader:
        for p, made in pushed:
            for _ in range(12):
                run = start(fetcher, p.on(wire), dest, "--layout", layout, "--fsync", "never")
                time.sleep(chance.random() * 0.12)
                run.kill()
            fetcher.pull(p.on(wire), dest, "--layout", layout).ok()
            holds(dest if layout == "flat" else dest / "current", made.files)
    assert reader.wrong == []
    fetcher("gc", dest).ok()
    assert partials(dest) == {}


@pytest.mark.parametrize("damage", ["journal", "journal-gone", "tree", "tree-gone", "tree-is-a-link", "file-is-a-link", "record"])
def test_what_was_left_behind_is_damaged(faults, fetcher, tmp_path, dest, damage):
    """A neighbour on the volume, or a file system that lost things: never a wrong file, nothing written elsewhere. [L41] [L18]"""
    made = layers_of({"a": weights(1, 2 * MIB)}, {"b/w": weights(2, 20 * MIB), "c": b"c"})
    ref = serve(faults, made)
    go = threading.Event()
    faults.rule(made.layers[1]["digest"], hold_at=(18 * MIB, go), nth=1)
    run = start(fetcher, ref, dest, "--range-size", "64MiB")
    assert faults.wait(lambda f: f.stalled), run.err()
    folder = dest / ".fetcher/partial"
    until(lambda: unpacked(dest) >= 16 * MIB and list(folder.glob("*.tree-journal")))
    run.kill()
    go.set()
    faults.clear()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "w").write_bytes(b"not ours")
    journal = next(folder.glob("*.tree-journal"))
    tree = folder / journal.name.replace("-journal", "")
    if damage == "journal":
        text = bytearray(journal.read_bytes())
        text[len(text) // 2] ^= 1
        journal.write_bytes(text)
    elif damage == "journal-gone":
        journal.unlink()
    elif damage == "tree":
        os.truncate(tree / "b/w", 1000)
    elif damage == "record":
        for record in (dest / ".fetcher/layers").iterdir():
            record.write_bytes(record.read_bytes().replace(b'"a"', b'"../../a"'))
    elif damage == "file-is-a-link":
        (tree / "b/w").unlink()
        (tree / "b/w").symlink_to(outside / "w")
    else:
        shutil.rmtree(tree)
        if damage == "tree-is-a-link":
            tree.symlink_to(outside)
    r = fetcher.pull(ref, dest, *SMALL)
    assert [p.name for p in outside.iterdir()] == ["w"] and (outside / "w").read_bytes() == b"not ours"
    assert not (dest / ".fetcher/a").exists() and not (dest.parent / "a").exists()
    if damage in ("tree-is-a-link", "file-is-a-link") and r.rc in (24, 40):
        return
    r.ok()
    holds(dest, made.files)


def test_gc_takes_what_a_killed_pull_left(faults, fetcher, dest):
    made = layers_of({"b/w": weights(2, 4 * MIB)})
    ref = serve(faults, made)
    go = threading.Event()
    faults.rule("blob", hold_at=(3 * MIB, go), nth=1)
    run = start(fetcher, ref, dest, "--range-size", "64MiB")
    assert faults.wait(lambda f: f.stalled), run.err()
    until(lambda: unpacked(dest) >= 2 * MIB)
    run.kill()
    go.set()
    fetcher("gc", dest).ok()
    assert work(dest) == set()


# -- signals, two at once ------------------------------------------------------------------------


@pytest.mark.parametrize("packing", producers.PACKINGS)
@pytest.mark.parametrize("where", ["moving", "stalled"])
def test_sigterm_in_mid_unpack(faults, fetcher, dest, packing, where):
    """[L53]"""
    made = layers_of({"w.bin": weights(1, 16 * MIB)}, {"v.bin": weights(2, 8 * MIB)}, packing=packing)
    ref = serve(faults, made)
    if where == "moving":
        faults.rule("blob", rate=8 * MIB)
    else:
        faults.rule("blob", stall_at=3 * MIB)
    run = start(fetcher, ref, dest, "--range-size", "64MiB")
    until(lambda: unpacked(dest) > MIB)
    began = time.monotonic()
    run.signal(signal.SIGTERM)
    run.wait(20).exits(143)
    assert time.monotonic() - began < STOP
    nothing_published(dest)
    faults.clear()
    fetcher.pull(ref, dest).ok()
    holds(dest, made.files)
    assert work(dest) == set()


@pytest.mark.parametrize("layout", ["flat", "versions"])
def test_two_fetchers(faults, fetcher, dest, layout):
    """The second waits, and finds the work done. [L52]"""
    made = layers_of({"w.bin": weights(1, 4 * MIB)}, {"c": b"c"}, packing="tar+gzip")
    ref = serve(faults, made)
    go = threading.Event()
    faults.rule(made.layers[0]["digest"], hold_at=(100_000, go), nth=1)
    args = ["pull", "--plain-http", "--layout", layout, "--output", "json", ref, dest]
    first = fetcher.start(*args)
    assert faults.wait(lambda f: f.stalled), first.err()
    second = fetcher.start(*args)
    until(lambda: "lock" in second.err() or "wait" in second.err())
    go.set()
    assert first.wait().ok().json["upToDate"] is False
    assert second.wait().ok().json["upToDate"] is True
    assert body_of(faults, made.layers[0]["digest"]) <= 1.1 * len(made.blobs[0])
    holds(dest if layout == "flat" else dest / "current", made.files)


# -- what comes over the wire --------------------------------------------------------------------

FAULTS = {
    "resets": dict(nth=set(range(1, 30, 2)), reset_at=200_000),
    "early-ends": dict(nth=set(range(1, 30, 3)), close_at=100_000),
    "short-bodies": dict(nth={2, 4, 6}, short=1000),
    "long-bodies": dict(nth={1, 3, 5}, long=1000),
    "200-to-a-range": dict(ignore_range=True),
    "no-length": dict(content_length="none"),
    "chunked": dict(chunked=True),
    "503": dict(nth={1, 4, 7}, status=503, retry_after=0),
    "wrong-start-once": dict(nth={2}, content_range=lambda a, b, n: f"bytes {a + 1}-{b + 1}/{n}"),
    "416-once": dict(nth={3}, status=416),
    "stalls": dict(nth={2, 5}, stall_at=50_000),
}


@pytest.mark.parametrize("name", FAULTS)
def test_servers_that_misbehave(faults, fetcher, dest, name):
    """The stream is made of ranges like any blob. [L39]"""
    made = layers_of({"w.bin": weights(1, 5 * MIB)}, {"v.bin": weights(2, 3 * MIB)}, packing=["tar", "tar+zstd"])
    ref = serve(faults, made)
    faults.rule("blob", **FAULTS[name])
    fetcher.pull(ref, dest, *SMALL, "--stall-timeout", "500ms").ok()
    holds(dest, made.files)


def test_through_a_redirecting_registry(registry_redirect, registry, fetcher, dest):
    """[L40]"""
    made = producers.modelcar(producers.model(size=2 * MIB))
    p = producers.put(registry, "run/redirect", "v1", made)
    asked = registry_redirect.gets()
    fetcher.pull(p.on(registry_redirect), dest, *SMALL).ok()
    holds(dest, made.files)
    assert registry_redirect.gets() - asked <= 2 * len(made.layers) + 2


def test_signed_urls_that_expire_in_mid_layer(faults, stranger, fetcher, dest):
    """[L40]"""
    made = layers_of({"w.bin": weights(1, 8 * MIB)})
    ref = serve(faults, made)
    faults.auth_bearer(users=None)
    faults.rule("blob", redirect=Presign(stranger, uses=3))
    fetcher.pull(ref, dest, *SMALL).ok()
    holds(dest, made.files)
    assert stranger.leaks() == []


def test_sha512_of_a_layer(faults, fetcher, dest):
    """[L46]"""
    body = pack(tar_of({"w.bin": weights(1, 2 * MIB)}), "tar+zstd")
    digest = faults.blob(body, alg="sha512")
    layer = {"mediaType": "application/vnd.cncf.model.weight.v1.tar+zstd", "digest": digest, "size": len(body)}
    faults.manifest(oci.manifest([layer], artifact_type=oci.MODELPACK), tag="v1")
    fetcher.pull(faults.ref(), dest).ok()
    holds(dest, {"w.bin": weights(1, 2 * MIB)})
    fetcher("verify", dest).ok()


@pytest.mark.parametrize("packing", producers.PACKINGS)
@pytest.mark.parametrize("where", ["data", "header", "padding"])
def test_one_flipped_bit(faults, fetcher, dest, packing, where):
    """22, nothing visible, nothing believed later; one that comes only once is mended. [L38]"""
    body = tar_of({"w.bin": weights(1, 3 * MIB), "c": b"c"}, record=64 << 10)
    blob = pack(body, packing)
    layer = descriptor(blob, "application/vnd.cncf.model.weight.v1." + packing)
    made = Made(oci.manifest([layer], artifact_type=oci.MODELPACK), [blob], {"w.bin": weights(1, 3 * MIB), "c": b"c"})
    ref = serve(faults, made)
    at = {"data": len(blob) // 2, "header": 3, "padding": len(blob) - 700 if packing == "tar" else len(blob) - 3}[where]
    rule = faults.rule("blob", flip=at)
    with Reader(dest, {n: sha(b) for n, b in made.files.items()}) as reader:
        r = fetcher.pull(ref, dest, *SMALL)
        assert r.rc == 22, r
        assert layer["digest"][7:19] in last_words(r) or "layer" in last_words(r)
        nothing_published(dest)
        assert not list((dest / ".fetcher/layers").glob("*")) if (dest / ".fetcher/layers").exists() else True
        assert rule.hits >= 2 and faults.sent("blob") <= 2.3 * len(blob)
        faults.clear()
        faults.rule("blob", times=1, flip=at)
        fetcher.pull(ref, dest, "--range-size", "64MiB", "--concurrency", "1").ok()
        faults.clear()
        until(lambda: reader.seen == set(made.files))
    assert reader.wrong == []
    holds(dest, made.files)


def test_another_layer_of_the_same_size(faults, fetcher, dest):
    """A whole archive that is in order, and not the one that was asked for. [L38]"""
    made = layers_of({"w.bin": weights(1, MIB)})
    ref = serve(faults, made)
    faults.blobs[made.layers[0]["digest"]] = tar_of({"w.bin": weights(2, MIB)})
    fetcher.pull(ref, dest).exits(22)
    nothing_published(dest)


# -- volumes -------------------------------------------------------------------------------------


def test_what_is_left_out_costs_no_disk(tmpfs, registry, wire, fetcher):  # noqa: F811
    """48 MiB of layers on a volume of 8. [L48] [L50]"""
    big = {"big.bin": weights(1, 16 * MIB), "config.json": b"c", "sub/tokenizer.json": b"t"}
    for packing in producers.PACKINGS:
        made = layers_of(big, packing=packing)
        p = producers.put(registry, "run/globs", packing.replace("+", "-"), made)
        dest = tmpfs("size=8m") / packing
        fetcher.pull(p.on(wire), dest, "--include", "*.json").ok()
        holds(dest, {n: b for n, b in big.items() if n.endswith(".json")})
        fetcher.pull(p.on(wire), dest).exits(23)


def test_a_disk_that_is_large_enough_by_a_little(tmpfs, registry, fetcher):  # noqa: F811
    """No second copy. [L50] [L51]"""
    made = layers_of({"w.bin": weights(1, 10 * MIB)}, {"v.bin": weights(2, 9 * MIB)}, packing=["tar+gzip", "tar"])
    p = producers.put(registry, "run/tight", "v1", made)
    for layout in ("flat", "versions"):
        dest = tmpfs("size=20m") / "dest"
        fetcher.pull(p.ref, dest, "--layout", layout).ok()
        holds(dest if layout == "flat" else dest / "current", made.files)


def test_a_disk_that_fills_up(tmpfs, faults, fetcher):  # noqa: F811
    """A neighbour takes the space: 23, the finished layer stays, and it goes on when there is room. [L50]"""
    mount = tmpfs("size=40m")
    dest = mount / "dest"
    made = layers_of({"a.bin": weights(1, 8 * MIB)}, {"b.bin": weights(2, 16 * MIB)})
    ref = serve(faults, made)
    go = threading.Event()
    faults.rule(made.layers[1]["digest"], hold_at=(9 * MIB, go), nth=1)
    run = start(fetcher, ref, dest, "--fsync", "never", "--range-size", "64MiB")
    assert faults.wait(lambda f: f.stalled), run.err()
    until(lambda: len(list((dest / ".fetcher").glob("layers/*"))) == 1)
    with pytest.raises(OSError), open(mount / "filler", "wb", 0) as f:
        while f.write(bytes(64 << 10)):
            pass
    go.set()
    r = run.wait(60)
    (mount / "filler").unlink()
    if r.rc == 0:  # all of it had been reserved before
        holds(dest, made.files)
        return
    r.exits(23)
    nothing_published(dest)
    faults.clear()
    faults.forget()
    fetcher.pull(ref, dest).ok()
    holds(dest, made.files)
    assert body_of(faults, made.layers[0]["digest"]) == 0


def test_an_archive_that_unpacks_to_more_than_the_disk(tmpfs, registry, fetcher):  # noqa: F811
    """Nobody can know before. [L50]"""
    made = layers_of({"zeros.bin": bytes(48 * MIB)}, packing="tar+gzip")
    p = producers.put(registry, "run/zeros", "v1", made)
    dest = tmpfs("size=24m") / "dest"
    fetcher.pull(p.ref, dest).exits(23)
    nothing_published(dest)
    assert marker(dest) is None


def test_max_bytes(registry, fetcher, dest):
    """Of the files, also where only unpacking shows it."""
    made = layers_of({"zeros.bin": bytes(8 * MIB)}, packing="tar+gzip")
    p = producers.put(registry, "run/max", "v1", made)
    fetcher.pull(p.ref, dest, "--max-bytes", "4MiB").exits(23)
    nothing_published(dest)
    fetcher.pull(p.ref, dest, "--max-bytes", "8MiB").ok()
    both = layers_of({"a": weights(1, 3 * MIB)}, {"b": weights(2, 3 * MIB)})
    p = producers.put(registry, "run/max", "v2", both)
    fetcher.pull(p.ref, dest / "x", "--max-bytes", "4MiB").exits(23)
    nothing_published(dest / "x")


def test_read_only_volume(tmpfs, registry, wire, fetcher):  # noqa: F811
    """Before a layer moves. [L50]"""
    mount = tmpfs("size=8m")
    p = producers.put(registry, "run/small", "v1", layers_of({"a": b"1"}))
    subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
    assert "ead-only" in last_words(fetcher.pull(p.on(wire), mount / "dest").exits(40))
    assert wire.gets("/blobs/") == []


@pytest.mark.parametrize("layout", ["flat", "versions"])
def test_foreign_files_are_kept(registry, fetcher, dest, layout):
    """[L49]"""
    (dest / "lost+found").mkdir(parents=True)
    (dest / "notes.txt").write_bytes(b"mine")
    for tag, names in (("v1", ["a", "d/b"]), ("v2", ["d/c"])):
        p = producers.put(registry, "run/foreign", tag, layers_of({n: n.encode() for n in names}))
        fetcher.pull(p.ref, dest, "--layout", layout).ok()
        base = dest if layout == "flat" else dest / "current"
        assert {n for n in files_in(base) if n != "notes.txt"} == set(names)
        assert (dest / "notes.txt").read_bytes() == b"mine" and (dest / "lost+found").is_dir()


def test_without_openat2(registry, dest, tmp_path):
    """The seccomp filter of an old runtime: the same files, and links are still not followed. [L18] [L51]"""
    numbers = {"x86_64": [437, 425, 426, 427, 332, 326, 435, 439], "aarch64": [437, 425, 426, 427, 291, 285, 435, 439]}
    script = tmp_path / "filtered.py"
    script.write_text("import os, sys\nsys.path.insert(0, sys.argv[1])\nfrom test_volume import filter_out\n"
                      f"filter_out({numbers[platform.machine()]}, 1)\nos.execv(sys.argv[2], sys.argv[2:])\n")
    made = layers_of({"a/b/w": weights(1, MIB), "a/twin": weights(1, MIB)}, {"c": b"c"}, packing=["tar", "tar+gzip"])
    p = producers.put(registry, "run/seccomp", "v1", made)

    def pull(where):
        return subprocess.run([shutil.which("python3"), script, os.path.dirname(os.path.abspath(__file__)), *binary(), "pull",
                               "--plain-http", p.ref, where], env={"PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True,
                              text=True, timeout=60, check=False)
    done = pull(dest)
    if "seccomp" in done.stderr and "OSError" in done.stderr:
        pytest.skip("no seccomp filter to be had here")
    assert done.returncode == 0, done.stderr
    holds(dest, made.files)
    outside, trap = tmp_path / "outside", tmp_path / "trap"
    outside.mkdir()
    trap.mkdir()
    (trap / "a").symlink_to(outside)
    assert pull(trap).returncode in (24, 40)
    assert list(outside.iterdir()) == []


# -- cost ----------------------------------------------------------------------------------------


def finished(run):
    """(bytes in write calls, bytes to the disk) of a fetcher that has ended and was not waited for yet."""
    os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOWAIT)
    io = dict(x.split(": ") for x in pathlib.Path(f"/proc/{run.pid}/io").read_text().splitlines())
    return int(io["wchar"]), int(io["write_bytes"])


@pytest.mark.parametrize("layout", ["flat", "versions"])
def test_bytes_are_written_once(registry, fetcher, dest, layout):
    """At most 1.02 x the files, over all packings. [L32]"""
    made = layers_of(*[{f"w{i}.bin": weights(i, 12 * MIB)} for i in range(3)], packing=list(producers.PACKINGS))
    p = producers.put(registry, "run/cost", "v1", made)
    run = fetcher.start("pull", "--plain-http", "--layout", layout, p.ref, dest)
    try:
        calls, disk = finished(run)
    except PermissionError:
        pytest.skip("/proc/PID/io is closed here")
    run.wait().ok()
    total = sum(map(len, made.files.values()))
    print(f"{calls / total:.4f} x in write calls, {disk / total:.4f} x to the disk")
    assert total <= calls + MIB and calls <= 1.02 * total and disk <= 1.02 * total


def peak_of(run):
    peak = 0
    while run.alive():
        try:
            peak = max(peak, run.rss_kib())
            run.process.wait(0.01)
        except (OSError, IndexError, subprocess.TimeoutExpired):
            continue
    return peak


def test_memory_does_not_grow_with_the_layers(registry, fetcher, dest):
    """Default budget: 96 MiB at most, with a window of 8 MiB in zstd. [L32]"""
    made = layers_of(*[{f"w{i}.bin": weights(i, 40 * MIB)} for i in range(3)], packing=list(producers.PACKINGS))
    p = producers.put(registry, "run/memory", "v1", made)
    run = fetcher.start("pull", "--plain-http", "--fsync", "never", p.ref, dest)
    peak = peak_of(run)
    run.wait().ok()
    print(f"{peak / 1024:.1f} MiB")
    assert 0 < peak <= 96 << 10, f"{peak} KiB"


def test_ten_thousand_files(registry, fetcher, dest):
    """Of one layer; then the same layer in another version costs nothing."""
    files = {f"d{i % 100:02d}/{i:05d}.txt": b"%d\n" % i for i in range(10_000)}
    made = layers_of(files, packing="tar+gzip")
    p = producers.put(registry, "run/many", "v1", made)
    run = fetcher.start("pull", "--plain-http", "--fsync", "never", p.ref, dest)
    peak = peak_of(run)
    run.wait().ok()
    assert len(files_in(dest)) == 10_000 and peak <= 64 << 10, f"{peak} KiB"


@pytest.mark.big
@pytest.mark.slow
def test_a_layer_beyond_4_gib(faults, fetcher, tmp_path, dest):
    """Offsets beyond 2^32, entries of 2^31+1 bytes; the zeros are left out, so nothing big is written. [L32]"""
    path = tmp_path / "big.tar"
    hash, zeros = hashlib.sha256(), bytes(MIB)
    with open(path, "wb") as f:
        for name, n in {"half.bin": (1 << 31) + 1, "more.bin": (1 << 31) + 12345}.items():
            header = entry(name, size=n)[:512]
            f.write(header)
            hash.update(header)
            n += -n % 512
            f.seek(n, os.SEEK_CUR)
            for at in range(0, n, MIB):
                hash.update(memoryview(zeros)[:n - at])
        f.write(tar(entry("last.json", b"{}")))
        hash.update(tar(entry("last.json", b"{}")))
    size, digest = path.stat().st_size, "sha256:" + hash.hexdigest()
    faults.blobs[digest] = faults._load(path)
    layer = {"mediaType": "application/vnd.cncf.model.weight.v1.tar", "digest": digest, "size": size}
    faults.manifest(oci.manifest([layer], artifact_type=oci.MODELPACK), tag="v1")
    assert size > 1 << 32
    run = fetcher.start("pull", "--plain-http", "--include", "last.json", faults.ref(), dest)
    peak = peak_of(run)
    run.wait(180).ok()
    holds(dest, {"last.json": b"{}"})
    assert peak <= 96 << 10, f"{peak} KiB"
    path.unlink()


@pytest.mark.parametrize("flags", [["--concurrency", "1", "--memory-budget", "4MiB"], ["--concurrency", "64", "--memory-budget", "4MiB"],
                                   ["--concurrency", "2", "--range-size", "64KiB"], ["--fsync", "always"]], ids=" ".join)
def test_many_layers_with_little_of_everything(faults, fetcher, dest, flags):
    """Nobody waits for what nobody fetches: 40 layers of all packings and 10 raw files, over few connections and windows."""
    parts = [{f"l{i:02d}/w.bin": weights(i, 3 * MIB if i % 13 == 0 else 40_000), f"l{i:02d}/c": b"%d" % i} for i in range(40)]
    made = layers_of(*parts, packing=[producers.PACKINGS[i % 3] for i in range(40)])
    for i in range(10):
        made.files[f"raw{i}"] = weights(100 + i, 300_000)
        made.blobs.append(made.files[f"raw{i}"])
        made.layers.append(oci.modelpack(made.blobs[-1], f"raw{i}"))
    fetcher.pull(serve(faults, made), dest, *flags, timeout=60).ok()
    holds(dest, made.files)
    assert work(dest) == set()


def test_kills_of_a_tar_of_everything(registry, fetcher, dest):
    """Links, hard links, sparse and repeated entries, an empty directory: what a checkpoint says of them holds. [L21] [L41]"""
    body = weights(1, 2 * MIB)
    entries, files, links = [], {}, {}
    for i in range(12):
        files.update({f"d{i}/w.bin": body, f"d{i}/hard": body, f"d{i}/own.bin": weights(i, MIB)})
        links[f"d{i}/soft"] = "w.bin"
        entries += [directory(f"d{i}"), entry(f"d{i}/own.bin", files[f"d{i}/own.bin"], mode=0o640),
                    entry(f"d{i}/w.bin", body), producers.hardlink(f"d{i}/hard", f"d{i}/w.bin"),
                    producers.symlink(f"d{i}/soft", "w.bin"), directory(f"e{i}/empty"), entry("d0/w.bin", body)]
    blob = tar(*entries, record=10240)
    made = Made(oci.manifest([descriptor(blob, "application/vnd.cncf.model.dataset.v1.tar")], artifact_type=oci.MODELPACK), [blob], {})
    p = producers.put(registry, "run/everything", "v1", made)
    with Relay(registry, limit=128 * MIB) as slow:
        for part in range(1, 5):
            run = start(fetcher, p.on(slow), dest, "--fsync", "never")
            until(lambda: unpacked(dest) >= part * 12 * MIB or not run.alive())
            assert run.alive(), run.err()
            run.kill()
    fetcher.pull(p.ref, dest, *SMALL).ok()
    holds(dest, files)
    assert producers.links_in(dest) == links
    assert all((dest / f"e{i}/empty").is_dir() for i in range(12))
    assert {(dest / f"d{i}/own.bin").stat().st_mode & 0o7777 for i in range(12)} == {0o640}
    fetcher("verify", dest).ok()


def test_deadline_in_mid_layer(faults, fetcher, dest):
    made = layers_of({"w.bin": weights(1, 4 * MIB)}, packing="tar+gzip")
    ref = serve(faults, made)
    faults.rule("blob", stall_at=MIB)
    fetcher.pull(ref, dest, "--deadline", "1s", timeout=30).exits(31)
    nothing_published(dest)
    faults.clear()
    fetcher.pull(ref, dest).ok()
    holds(dest, made.files)


def test_a_veto_keeps_what_was_unpacked(faults, fetcher, dest):
    """The next try asks again and fetches nothing."""
    made = layers_of({"w.bin": weights(1, MIB)}, {"c": b"c"}, packing=["tar+zstd", "tar"])
    ref = serve(faults, made)
    for answer, rc in (("/bin/false", 14), ("/bin/true", 0)):
        faults.forget()
        fetcher.pull(ref, dest, "--layout", "versions", "--pre-publish-hook", answer).exits(rc)
        assert (faults.gets("blob") == []) == (rc == 0)
        assert (dest / "current").exists() == (rc == 0)
    holds(dest / "current", made.files)


@pytest.mark.parametrize("what", ["link", "directory", "garbage", "empty", "other-file"])
def test_records_that_are_not_ours(registry, fetcher, tmp_path, dest, what):
    """Of layers that an earlier version had: believed only as far as they hold. [L38]"""
    one = layers_of({"a": weights(1, 50_000)}, {"b": b"1"})
    two = layers_of({"a": weights(1, 50_000)}, {"b": b"2"})
    fetcher.pull(producers.put(registry, "run/records", "v1", one).ref, dest).ok()
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    records = list((dest / ".fetcher/layers").iterdir())
    assert len(records) == 2
    for record in records:
        text = record.read_bytes()
        record.unlink()
        if what == "link":
            record.symlink_to(victim)
        elif what == "directory":
            record.mkdir()
        else:
            record.write_bytes({"garbage": b"{" * 5000, "empty": b"",
                                "other-file": text.replace(oci.digest_of(weights(1, 50_000)).encode(), oci.digest_of(b"1").encode())
                                .replace(b'"size":50000', b'"size":1')}[what])
    r = fetcher.pull(producers.put(registry, "run/records", "v2", two).ref, dest)
    assert victim.read_bytes() == b"untouched"
    if what == "other-file":    # the volume's owner can always lie to itself
        assert r.rc in (0, 22), r
        return
    if what == "directory" and r.rc == 24:
        return
    r.ok()
    holds(dest, two.files)


# -- versions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["flat", "versions"])
@pytest.mark.parametrize("kind", ["modelpack", "image"])
def test_a_new_digest_fetches_only_the_layers_that_changed(registry, wire, fetcher, dest, kind, layout):
    """What did not change is known by its record and found on the volume."""
    def make(changed):
        parts = [{f"w{i}.bin": weights(100 + changed if i == 1 else i, MIB)} for i in range(3)]
        if kind == "modelpack":
            return layers_of(*parts, packing=list(producers.PACKINGS))
        return producers.image([tar_of({"models/" + n: b for n, b in x.items()}) for x in parts],
                               {n: b for x in parts for n, b in x.items()})
    base = dest if layout == "flat" else dest / "current"
    for number in range(3):
        made = make(number)
        p = producers.put(registry, f"run/changed-{kind}", f"v{number}", made)
        wire.reset()
        fetcher.pull(p.on(wire), dest, "--layout", layout).ok()
        holds(base, made.files)
        got = {r.target.rsplit("/", 1)[1] for r in wire.gets("/blobs/")}
        assert got == ({x["digest"] for x in made.layers} if number == 0 else {made.layers[1]["digest"]})
    if layout == "versions":
        versions = list((dest / ".fetcher/versions").iterdir())
        assert len(versions) <= 3


def test_a_file_that_is_gone_brings_its_layer_again(registry, wire, fetcher, dest):
    """A record without the content is no reason to publish. [L38]"""
    one = layers_of({"a": weights(1, 50_000)}, {"b": b"1"})
    two = layers_of({"a": weights(1, 50_000)}, {"b": b"2"})
    fetcher.pull(producers.put(registry, "run/gone", "v1", one).ref, dest).ok()
    (dest / "a").unlink()
    fetcher.pull(producers.put(registry, "run/gone", "v2", two).on(wire), dest).ok()
    holds(dest, two.files)
    assert one.layers[0]["digest"] in "".join(r.target for r in wire.gets("/blobs/"))


def test_an_open_file_of_the_old_version(registry, fetcher, dest):
    """Layout flat: replaced by rename, so that readers keep what they have. [L54]"""
    old, new = weights(1, MIB), weights(2, MIB)
    fetcher.pull(producers.put(registry, "run/open", "v1", layers_of({"w.bin": old})).ref, dest).ok()
    with open(dest / "w.bin", "rb") as f:
        fetcher.pull(producers.put(registry, "run/open", "v2", layers_of({"w.bin": new}, packing="tar+zstd")).ref, dest).ok()
        assert f.read() == old
    holds(dest, {"w.bin": new})


@pytest.mark.parametrize("packing", ["tar", "tar+zstd"])
def test_watch_swaps_between_two_archives(registry, wire, fetcher, dest, packing):
    """The reader of the link sees whole versions, and its maps do not change; shared layers are not fetched. [L54]"""
    shared = {"shared.bin": weights(50, 2 * MIB), "config.json": b"{}"}
    versions = []
    for i in range(3):
        made = layers_of(shared, {"w.bin": weights(i, MIB)}, packing=packing)
        p = producers.put(registry, "run/watch-" + packing[-4:], "live" if i == 0 else None, made)
        versions.append((Version(p.digest, made.files, b""), made))
    repo = "run/watch-" + packing[-4:]
    with Sidecar(fetcher, f"{wire.host}/{repo}:live", dest, "--period", "1h", "--keep-versions", "2") as s:
        s.published(versions[0][0])
        with MappedReader(dest, [v for v, _ in versions]) as reader:
            for v, made in versions[1:] + versions[:1]:
                wire.reset()
                registry.api.put_manifest(repo, "live", made.manifest)
                s.hup()
                s.published(v)
                holds(dest / "current", made.files)
                assert made.layers[0]["digest"] not in "".join(r.target for r in wire.gets("/blobs/"))
                reader.next_round()
        assert reader.wrong == [] and len(reader.seen) >= 2
        s.terminate(ANY)


def test_one_file_in_two_layers_of_two_artifacts(registry, wire, fetcher, dest):
    """Packed otherwise the layer is another one, the file is the same."""
    body = weights(1, MIB)
    for tag, packing in (("v1", "tar"), ("v2", "tar+zstd")):
        p = producers.put(registry, "run/same", tag, layers_of({"w.bin": body}, {"tag": tag.encode()}, packing=packing))
        fetcher.pull(p.on(wire), dest, "--layout", "versions", "--keep-versions", "2").ok()
        holds(dest / "current", {"w.bin": body, "tag": tag.encode()})
    assert len(list((dest / ".fetcher/versions").glob("*/w.bin"))) == 2
    fetcher("verify", dest).ok()


def test_raw_files_beside_archives(faults, fetcher, dest):
    """Empty, small and large ones, content that an archive has as well, and an empty directory. [L6] [L7]"""
    shared = data(1, 300_000)
    made = layers_of({"t/a": shared, "t/empty": b""}, packing="tar+gzip")
    blob = tar(directory("nothing/here"), entry("x", b"x"))
    made.blobs.append(blob)
    made.layers.append(descriptor(blob, "application/vnd.cncf.model.doc.v1.tar"))
    for name, body in {"raw/a": shared, "raw/empty": b"", "raw/big": Content(3, 3 * MIB).bytes()}.items():
        made.blobs.append(body)
        made.layers.append(oci.modelpack(body, name))
        made.files[name] = body
    made.files["x"] = b"x"
    fetcher.pull(serve(faults, made), dest).ok()
    holds(dest, made.files)
    assert (dest / "nothing/here").is_dir()
    fetcher("verify", dest).ok()
