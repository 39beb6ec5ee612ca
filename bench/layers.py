# SPDX-License-Identifier: Apache-2.0
"""Scenario L: a model inside the layers of a container image, which has to be unpacked."""

import concurrent.futures
import hashlib
import io
import json
import pathlib
import shlex
import subprocess
import tarfile

import report
from peers import CORES, Failed, Fetcher, FloorHash, FloorReceive, Peer, _curl, _in_parallel, remove
from report import Result, Verdict, good, median, ratio, spread
from servers import MIB, REPO, Artifact, part

from lib import oci, producers
from lib.content import file_sha256

FILES = 2
UMOCI_GZIP_ROUNDS = 2   # each takes about 20 s
PACKINGS = {"tar": None, "tar+zstd": ("zstd", "-q", "-3", "-c"), "tar+gzip": ("gzip", "-6", "-c")}
DECODERS = {"tar": None, "tar+zstd": ("zstd", "-q", "-d", "-c"), "tar+gzip": ("gzip", "-d", "-c")}
NOTE = f"""\
- L: an image of {FILES} layers, each a tar with one file of random bf16 weights below models/, as
  zstd -3 and gzip -6 make them smaller. CPU-s/GiB is per GiB of files. Written is what the client
  and its children gave to write calls, messages and pipes too, divided by the files: an upper bound
  of what went to the file system. umoci takes one layer after the other, reads all files once
  more for its manifest of the bundle, and knows no zstd; with gzip it runs {UMOCI_GZIP_ROUNDS} rounds only. curl into tar checks no digest; tar runs once a
  layer, both at a time. fetcher checks each layer's digest and takes one of each file.
- L's floor: receiving, hashing and the server's work spread over the cores, but not less than the
  hash of one layer on one core; and the layers decoded at the same time, to nowhere."""


def tool(words):
    """The command in words: of the system, or one that was unpacked."""
    return [part("zstd") if words[0] == "zstd" else words[0], *words[1:]]


# ---- content ------------------------------------------------------------------------------------


class Image(Artifact):
    """files {path in the image: sha256}; unpacked: their bytes."""

    def __init__(self, packing, tag, items, digest, files, unpacked):
        super().__init__(tag, items, digest)
        self.packing = packing
        self.files = files
        self.unpacked = unpacked
        self.sizes = {sha: unpacked // FILES for sha in files.values()}


class Weights(io.RawIOBase):
    """A file of so many MiB, made while it is read."""

    def __init__(self, seed, mib):
        super().__init__()
        self.seed, self.left, self.held = seed, mib, b""
        self.digest = hashlib.sha256()

    def read(self, size=-1):
        if not self.held and self.left:
            self.held = producers.weights(self.seed << 20 | self.left, MIB)
            self.left -= 1
        piece, self.held = self.held[:size], self.held[size:]
        self.digest.update(piece)
        return piece


def make_tar(path, name, seed, mib):
    """The file's sha256."""
    weights = Weights(seed, mib)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        folder = tarfile.TarInfo("models")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
        entry = tarfile.TarInfo(f"models/{name}")
        entry.size, entry.mode, entry.mtime = mib * MIB, 0o644, producers.MTIME
        tar.addfile(entry, weights)
    return weights.digest.hexdigest()


class Images:
    """The tars, made once, and an image of them in each packing."""

    def __init__(self, folder, backends, mib):
        self.folder, self.backends, self.mib = folder, backends, mib
        folder.mkdir()
        self.tars = [folder / f"layer-{i}.tar" for i in range(1, FILES + 1)]
        self.names = [f"model-{i:05d}-of-{FILES:05d}.safetensors" for i in range(1, FILES + 1)]
        with concurrent.futures.ProcessPoolExecutor(FILES) as pool:
            shas = list(pool.map(make_tar, self.tars, self.names, range(1, FILES + 1), [mib] * FILES))
        self.files = {f"models/{name}": sha for name, sha in zip(self.names, shas)}
        self.diff_ids = ["sha256:" + file_sha256(tar) for tar in self.tars]

    def _packed(self, tar, packing):
        if not PACKINGS[packing]:
            return tar
        path = tar.with_suffix(packing.replace("tar", ".tar").replace("+", "."))
        with open(tar, "rb") as source, open(path, "wb") as out:
            subprocess.run(tool(PACKINGS[packing]), stdin=source, stdout=out, check=True)
        return path

    def push(self, packing):
        """Only one at a time stays in the registry."""
        with concurrent.futures.ThreadPoolExecutor(FILES) as pool:
            paths = list(pool.map(lambda tar: self._packed(tar, packing), self.tars))
        self.backends.keep_only(set())
        api, tag = self.backends.registry.api, packing.replace("+", "-")
        layers = [{"mediaType": f"application/vnd.oci.image.layer.v1.{packing}",
                   "digest": api.put_blob(REPO, path), "size": path.stat().st_size} for path in paths]
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {},
                             "rootfs": {"type": "layers", "diff_ids": self.diff_ids}}).encode()
        pushed = api.put_manifest(REPO, tag, oci.manifest(
            layers, oci.descriptor(config, producers.IMAGE_CONFIG), artifact_type=None), blobs=[config])
        items = [(path.name, layer["digest"], layer["size"]) for path, layer in zip(paths, layers)]
        for path in paths:
            if path not in self.tars:
                path.unlink()
        return self.backends.adopt(Image(packing, tag, items, pushed.digest, self.files,
                                         FILES * self.mib * MIB))


# ---- clients ------------------------------------------------------------------------------------


class Unpacker(Peer):
    below = ""  # where in dest the root of the image is

    def names(self, job):
        return {self.below + path: sha for path, sha in job.artifact.files.items()}


class FetchImage(Fetcher):
    """DEST gets what lies in models/."""

    def names(self, job):
        return {path.partition("/")[2]: sha for path, sha in job.artifact.files.items()}


class Umoci(Unpacker):
    """A copy of the image, and then a bundle with its root."""

    below = "bundle/rootfs/"

    def argv(self, job):
        dest = shlex.quote(str(job.dest))
        copy = [part("skopeo"), "--insecure-policy", "--tmpdir", str(job.scratch), "copy", "-q",
                "--src-tls-verify=false", f"docker://{job.stage.ref(job.artifact)}"]
        return ["/bin/sh", "-c", f"{shlex.join(copy)} oci:{dest}/oci:it && {part('umoci')} unpack "
                f"--rootless --image {dest}/oci:it {dest}/bundle"]


class CurlTar(Unpacker):
    def argv(self, job):
        decode = DECODERS[job.artifact.packing]
        pipe = f"| {shlex.join(tool(decode))} " if decode else ""
        return ["/bin/sh", "-c", f"cd {shlex.quote(str(job.dest))} || exit 1\n" + _in_parallel(
            [f"{_curl(job)} {job.url(digest)} {pipe}| tar -x -f - --no-same-owner"
             for _, digest, _ in job.artifact.items])]


class FloorDecode(Peer):
    """Only decoding what FloorReceive left, one process a layer."""

    def argv(self, job):
        decode = shlex.join(tool(DECODERS[job.artifact.packing]))
        return ["/bin/sh", "-c", f"cd {shlex.quote(str(job.dest))} || exit 1\n" + _in_parallel(
            [f"{decode} {shlex.quote(title)} >/dev/null" for title, _, _ in job.artifact.items])]


FLOOR = ("floor receive", "floor hash", "floor decode")


# ---- rounds -------------------------------------------------------------------------------------


def floor(bench, results, job, number):
    peers = [FloorReceive(FLOOR[0]), FloorHash(FLOOR[1])]
    if DECODERS[job.artifact.packing]:
        peers.append(FloorDecode(FLOOR[2]))
    for peer in peers:
        if not results[peer.name].failure:
            bench.once(peer, results[peer.name], job, number, None)


def peers_of(bench, packing):
    decode = DECODERS[packing]
    others = [CurlTar(" | ".join(["curl", *([f"{decode[0]} -d"] if decode else []), "tar x"]))]
    if packing != "tar+zstd":
        others.append(Umoci("skopeo + umoci"))
    return bench.wanted([*(FetchImage(p.name, p.words) for p in bench.fetchers), *others])


def rounds(bench, artifact):
    peers = peers_of(bench, artifact.packing)
    results = {peer.name: Result(peer.name) for peer in peers}
    turns = list(peers)
    if not bench.options.peers:
        results |= {name: Result(name) for name in FLOOR}
        turns.append("floor")
    job = bench.job(bench.backends.plain(), artifact)
    if bench.options.strace:
        bench.count_syscalls([p for p in peers if not isinstance(p, Umoci)], results, job)
    for number in range(1, bench.options.rounds + 1):
        shift = (number - 1) % len(turns)
        for peer in turns[shift:] + turns[:shift]:
            remove(job.dest)
            if peer == "floor":
                floor(bench, results, job, number)
            elif not results[peer.name].failure and not (
                    isinstance(peer, Umoci) and artifact.packing == "tar+gzip" and
                    number > UMOCI_GZIP_ROUNDS):
                bench.once(peer, results[peer.name], job, number, number == 1)
    remove(job.dest)
    return results


# ---- what is printed ----------------------------------------------------------------------------


def floors(results):
    """Seconds of each round: download and hash over the cores; decode (None where nothing is)."""
    receive, hashing, decode = (good(results, name) for name in FLOOR)
    if not receive or not hashing:
        return None, None
    return report.floor_walls(receive, hashing, CORES), decode.of("wall") if decode else None


def rows(results, artifact):
    units, mine = artifact.unpacked / report.GIB, good(results, "fetcher")
    for name, result in results.items():
        if name in FLOOR:
            continue
        if result.failure:
            yield [artifact.packing, name, f"failed: {result.failure}"]
            continue
        against = mine and result is not mine
        yield [artifact.packing, name, spread(result.of("wall")),
               ratio(result.of("wall"), mine.of("wall")) if against else "",
               spread([cpu / units for cpu in result.of("cpu")]),
               f"{max(result.of('rss')) / MIB:.1f}",
               "" if "|" in name else f"{max(result.of('wchar')) / artifact.unpacked:.3f}x",
               f"{median(result.seen('blob_gets')):.0f}",
               "" if result.syscalls is None else report.count(result.syscalls / units),
               f"{median(result.of('server')) / units:.2f}"]
    for title, walls in zip(("download + hash", "decode"), floors(results)):
        if walls:
            yield [artifact.packing, f"floor: {title} over {CORES} cores", spread(walls),
                   ratio(walls, mine.of("wall")) if mine else ""]


def near_floor(results, packing):
    verdict = Verdict(f"{packing}: wall <= 1.15x of the slower of download + hash and decode")
    mine, (receive, decode) = good(results, "fetcher"), floors(results)
    if not mine or not receive:
        return verdict
    slower = max((w for w in (receive, decode) if w), key=median)
    return Verdict(verdict.text, ratio(mine.of("wall"), slower),
                   median(mine.of("wall")) <= 1.15 * median(slower))


def verdicts(by_packing, artifacts):
    times, small, once = (Verdict("tar+gzip: at least 6x faster than skopeo + umoci"),
                          Verdict("peak RSS <= 96 MiB"), Verdict("written <= 1.02x of the files"))
    gzip = by_packing["tar+gzip"]
    mine, umoci = good(gzip, "fetcher"), good(gzip, "skopeo + umoci")
    if mine and umoci:
        faster = median(umoci.of("wall")) / median(mine.of("wall"))
        times = Verdict(times.text, f"{faster:.1f}x", faster >= 6)
    runs = [(run, artifacts[packing].unpacked) for packing, results in by_packing.items()
            if good(results, "fetcher") for run in results["fetcher"].runs]
    if runs:
        peak = max(run.rss for run, _ in runs) / MIB
        small = Verdict(small.text, f"{peak:.1f} MiB", peak <= 96)
        share = max(run.wchar / unpacked for run, unpacked in runs)
        once = Verdict(once.text, f"{share:.3f}x", share <= 1.02)
    return [times, near_floor(by_packing["tar+zstd"], "tar+zstd"),
            near_floor(by_packing["tar"], "tar"), once, small]


HEAD = ["layers", "tool", "wall s", "x fetcher", "CPU-s/GiB", "peak RSS MiB", "written", "blob GETs",
        "syscalls/GiB", "server CPU-s/GiB"]


def run(bench, say):
    """Markdown lines, and what goes to the raw numbers."""
    mib = bench.options.layer_mib
    folder = pathlib.Path(bench.folder) / "tars"
    by_packing, artifacts, lines, sizes = {}, {}, [], []
    try:
        images = Images(folder, bench.backends, mib)
        for packing in PACKINGS:
            artifacts[packing] = artifact = images.push(packing)
            say(f"  {packing}: {artifact.size / MIB:.0f} MiB for {artifact.unpacked / MIB:.0f}")
            if artifact.size < artifact.unpacked:
                sizes.append(f"{artifact.unpacked / artifact.size:.2f}x for {packing}")
            by_packing[packing] = rounds(bench, artifact)
            lines += rows(by_packing[packing], artifact)
    finally:
        remove(folder)
    if not all(by_packing.values()):
        raise Failed("nobody who could unpack layers")
    everyone = {f"{packing} {name}": result for packing, results in by_packing.items()
                for name, result in results.items()}
    raw = {f"{name.split(' ', 1)[1]} {name.split(' ', 1)[0]}": result.as_dict()
           for name, result in everyone.items()}
    return [*report.table(HEAD, lines), "", f"{FILES} x {mib} MiB; compressed {' and '.join(sizes)}.",
            "", *report.noise(everyone), "", *map(str, verdicts(by_packing, artifacts))], raw
