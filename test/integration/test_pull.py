# SPDX-License-Identifier: Apache-2.0
"""A reference becomes the right files: producers' layouts, kinds of manifests, what is refused.
Real registry first; the fault server only where a registry would not take such content.
Numbers such as [L12] are the cases of the reference on artifact layouts, [C12] of that on clients,
[K12] of that on Kubernetes and security."""

import base64
import hashlib
import json
import os
import stat

import pytest

from lib import oci
from lib.content import Content, data, files_in
from lib.look import holds, last_words, marker, nothing_published, partials
from lib.registry import Registry
from lib.relay import Relay

MIB = 1 << 20


# -- artifacts as oras pushes them ---------------------------------------------------------------


def test_oras_artifact(registry, push, fetcher, dest):
    """Nested folders, same base names, spaces, unicode, dots, an empty file. [L1-L6]"""
    files = {
        "config.json": b'{"a": 1}\n',
        "model 0001 of 2.safetensors": Content(1, 3 * MIB + 1),
        "a/b/c/d/deep.bin": Content(2, 100_001),
        "x/tokenizer.json": b"x",
        "y/tokenizer.json": b"y",
        "\u00e9t\u00e9/\u6a21\u578b-\u00fc.bin": b"unicode",
        ".gitattributes": b"*.bin",
        "v1..2-final_[q4]*.gguf": b"odd",
        "empty": b"",
    }
    p = push(registry, "pull/oras", "v1", files)
    fetcher.pull(p.ref, dest).ok()
    holds(dest, files)
    m = marker(dest)
    assert m["digest"] == p.digest
    assert m["files"] == len(files)
    assert m["bytes"] == 3 * MIB + 1 + 100_001 + sum(
        len(v) for v in files.values() if isinstance(v, bytes))
    assert partials(dest) == {}


def test_default_modes(registry, push, fetcher, dest):
    p = push(registry, "pull/oras-modes", "v1", {"d/a": b"x"})
    fetcher.pull(p.ref, dest, umask=0o022).ok()
    assert stat.S_IMODE((dest / "d" / "a").stat().st_mode) == 0o644
    assert stat.S_IMODE((dest / "d").stat().st_mode) == 0o755
    assert stat.S_IMODE((dest / ".fetcher" / "partial").stat().st_mode) == 0o700


@pytest.mark.parametrize("size", [1, 4095, 4096, 65536, MIB - 1, MIB, MIB + 1, 16 * MIB + 1])
def test_sizes_around_the_edges(registry, push, fetcher, dest, size):
    files = {"w": Content(size, size)}
    p = push(registry, "pull/edges", f"v{size}", files)
    fetcher.pull(p.ref, dest, "--range-size", "64KiB" if size < MIB else "1MiB").ok()
    holds(dest, files)


def test_empty_file_costs_no_get(registry, push, wire, fetcher, dest):
    """[C11] and a Range on an empty blob would be answered 416."""
    p = push(registry, "pull/empty", "v1", {"a": b"", "b/c": b""})
    fetcher.pull(p.on(wire), dest).ok()
    holds(dest, {"a": b"", "b/c": b""})
    assert wire.gets("/blobs/") == []


def test_same_content_twice_is_fetched_once(registry, push, wire, fetcher, dest):
    """[L7] [C13]"""
    body = Content(11, 2 * MIB)
    files = {"a.bin": body, "sub/b.bin": body, "c.bin": body, "other": b"z"}
    p = push(registry, "pull/twice", "v1", files)
    fetcher.pull(p.on(wire), dest).ok()
    holds(dest, files)
    assert wire.body("/blobs/") <= 2 * MIB + 1000


def test_two_thousand_small_files(registry, wire, fetcher, dest):
    """One request per blob; they are not probed and not split."""
    files = {f"shard/{i:04d}.txt": f"file number {i}\n".encode() * 20 for i in range(2000)}
    blobs = list(files.values())
    layers = [oci.titled(b, n) for n, b in files.items()]
    _fill(registry, "pull/many", blobs)
    p = registry.api.put_manifest("pull/many", "v1", oci.manifest(layers), blobs=[b"{}"])
    fetcher.pull(p.on(wire), dest).ok()
    holds(dest, files)
    assert len(wire.gets("/blobs/")) <= 2000 + 20
    assert wire.open_max <= 16 + 1


def _fill(registry, repo, blobs):
    """Many small blobs straight into the registry's folder, as it lays them out itself."""
    base = registry.data / "docker/registry/v2"
    for body in blobs:
        name = hashlib.sha256(body).hexdigest()
        folder = base / "blobs/sha256" / name[:2] / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "data").write_bytes(body)
        link = base / "repositories" / repo / "_layers/sha256" / name
        link.mkdir(parents=True, exist_ok=True)
        (link / "link").write_text("sha256:" + name)


@pytest.mark.big
@pytest.mark.slow
def test_three_gib_sparse_file(registry, fetcher, dest):
    """Offsets beyond 2^31; memory does not grow with the file. [L32]"""
    body = Content(77, (3 << 30) + 12345, sparse=True)
    body.write_to(registry.dir / "sparse")
    name = body.sha256
    base = registry.data / "docker/registry/v2"
    folder = base / "blobs/sha256" / name[:2] / name
    folder.mkdir(parents=True)
    (registry.dir / "sparse").rename(folder / "data")
    link = base / "repositories/pull/sparse/_layers/sha256" / name
    link.mkdir(parents=True)
    (link / "link").write_text("sha256:" + name)
    p = registry.api.put_manifest("pull/sparse", "v1", oci.manifest([oci.titled(body, "w.bin")]))
    run = fetcher.start("pull", "--plain-http", "--fsync", "never", p.ref, dest)
    peak = 0
    while run.alive():
        try:
            peak = max(peak, run.rss_kib())
        except (OSError, IndexError):
            break
        try:
            run.process.wait(0.05)
        except Exception:
            pass
    run.wait(180).ok()
    assert (dest / "w.bin").stat().st_size == body.size
    fetcher("verify", dest).ok()
    assert 0 < peak <= 64 << 10, f"{peak} KiB"
    (dest / "w.bin").unlink()
    (folder / "data").unlink()


def test_ranges_are_shared_by_all_connections(haproxy_capped, registry, push, fetcher, dest):
    """A cap per connection is answered with more connections, on one blob and on two."""
    files = {"a": Content(21, 48 * MIB), "b": Content(22, 32 * MIB)}
    p = push(registry, "pull/capped", "v1", files)
    with Relay(haproxy_capped) as wire:
        fetcher.pull(p.on(wire), dest, "--range-size", "2MiB").ok()
        assert wire.open_max >= 8
        assert wire.body("/blobs/") <= 80 * MIB * 1.25  # hedged ranges at the end
        spans = [r.range for r in wire.gets("/blobs/") if r.range]
        assert all(end is not None for _, end in spans), "an open-ended range"
    holds(dest, files)


@pytest.mark.parametrize("most", [1, 2, 5])
def test_concurrency_is_a_limit(haproxy_capped, registry, push, fetcher, dest, most):
    p = push(registry, "pull/concurrency", "v1", {"a": Content(23, 12 * MIB), "b": b"x"})
    with Relay(haproxy_capped) as wire:
        fetcher.pull(p.on(wire), dest, "--concurrency", most, "--range-size", "1MiB").ok()
        assert wire.open_max <= most + 1  # the one that asked for the manifest may still be open
    holds(dest, {"a": Content(23, 12 * MIB), "b": b"x"})


def test_redirecting_registry(registry_redirect, storage_nginx, registry, push, fetcher, dest):
    """Real 307s to another port: the target is kept per blob, not asked for with each range."""
    files = {"a": Content(31, 24 * MIB), "b": Content(32, 300_000)}
    p = push(registry, "pull/redirect", "v1", files)
    asked = registry_redirect.gets()
    fetcher.pull(p.on(registry_redirect), dest, "--range-size", "1MiB").ok()
    holds(dest, files)
    assert registry_redirect.gets() - asked <= 6
    paths = [r for r in storage_nginx.requests(
        until=lambda log: sum(r["range"].endswith("-25165823") for r in log))
        if Content(31, 24 * MIB).sha256 in r["uri"]]
    assert len(paths) >= 12
    assert {r["authorization"] for r in paths} == {""}


def test_cold_pull_through_cache(registry_proxy, registry, push, fetcher, dest):
    """It answers 200 with the whole blob to a range until it has stored it. [C18]"""
    files = {"a": Content(41, 12 * MIB), "b": Content(42, 5 * MIB), "c": b"small"}
    p = push(registry, "pull/cold", "v1", files)
    with Relay(registry_proxy) as wire:
        fetcher.pull(p.on(wire), dest, "--range-size", "1MiB").ok()
        holds(dest, files)
        assert wire.body("/blobs/") <= 17 * MIB * 1.5
        assert any(r.status == 200 and r.range for r in wire.gets("/blobs/"))


def test_ipv6_registry(start, push, fetcher, dest):
    try:
        six = start(Registry, "registry-six", host="::1")
    except (OSError, RuntimeError):
        pytest.skip("no IPv6 loopback here")
    p = push(six, "pull/six", "v1", {"a": b"x"})
    assert p.ref.startswith("[::1]:")
    fetcher.pull(p.ref, dest).ok()
    holds(dest, {"a": b"x"})


# -- references ----------------------------------------------------------------------------------


def test_forms_of_one_reference(registry, push, fetcher, tmp_path):
    """[L44] [C2]: tag, digest, both (the digest wins), scheme, no tag = latest."""
    old = push(registry, "pull/forms", "v1", {"a": b"old"})
    now = {body: push(registry, "pull/forms", tag, {"a": body}).digest
           for tag, body in (("v1", b"new"), ("latest", b"latest"))}
    base = f"{registry.host}/pull/forms"
    want = {base + ":v1": b"new", base: b"latest", f"oci://{base}:v1": b"new",
            f"{base}@{old.digest}": b"old", f"{base}:v1@{old.digest}": b"old",
            f"{base}:@{old.digest}": b"old", f"{base}:gone@{old.digest}": b"old"}
    for number, (ref, body) in enumerate(want.items()):
        dest = tmp_path / str(number)
        fetcher.pull(ref, dest).ok()
        holds(dest, {"a": body})
        assert marker(dest)["digest"] == (old.digest if body == b"old" else now[body]), ref


def test_not_found(registry, push, fetcher, dest):
    p = push(registry, "pull/found", "v1", {"a": b"x"})
    gone = "sha256:" + "0" * 64
    for ref in (f"{registry.host}/pull/found:v2", f"{registry.host}/pull/nothing:v1",
                f"{registry.host}/pull/found@{gone}"):
        r = fetcher.pull(ref, dest).exits(21)
        assert "not found" in last_words(r)
    nothing_published(dest)
    fetcher.pull(p.ref, dest).ok()


# -- kinds of manifests --------------------------------------------------------------------------


def put_index(registry, repo, tag, entries, **how):
    """entries: [(Pushed, {platform...} or None)]"""
    listed = []
    for pushed, platform in entries:
        size = int(registry.api.request(
            "HEAD", f"/v2/{repo}/manifests/{pushed.digest}",
            headers={"Accept": f"{oci.MANIFEST}, {oci.INDEX}, {oci.DOCKER_MANIFEST}, "
                               f"{oci.DOCKER_LIST}"})[1]["Content-Length"])
        entry = {"mediaType": how.get("entry_type", oci.MANIFEST), "digest": pushed.digest,
                 "size": size}
        if platform:
            entry["platform"] = platform
        listed.append(entry)
    how.pop("entry_type", None)
    return registry.api.put_manifest(repo, tag, oci.index(listed, **how))


def put_files(registry, repo, tag, files, **keys):
    layers = [oci.titled(b, n) for n, b in files.items()]
    return registry.api.put_manifest(repo, tag, oci.manifest(layers, **keys),
                                     blobs=list(files.values()))


PLATFORMS = {"amd64": {"os": "linux", "architecture": "amd64"},
             "arm64": {"os": "linux", "architecture": "arm64", "variant": "v8"},
             "windows": {"os": "windows", "architecture": "amd64", "os.version": "10.0.1"}}


@pytest.fixture(scope="module")
def multi(registry):
    """An index for three platforms, with an attestation entry. [L43]"""
    repo = "pull/index"
    entries = [(put_files(registry, repo, f"only-{name}", {"which": name.encode()}), platform)
               for name, platform in PLATFORMS.items()]
    noise = put_files(registry, repo, "attestation", {"which": b"attestation"})
    entries.insert(0, (noise, {"os": "unknown", "architecture": "unknown"}))
    return put_index(registry, repo, "v1", entries)


@pytest.mark.parametrize("platform, which", [("linux/amd64", "amd64"), ("linux/arm64", "arm64"),
                                             ("linux/arm64/v8", "arm64"),
                                             ("windows/amd64", "windows")])
def test_index_by_platform(multi, fetcher, dest, platform, which):
    fetcher.pull(multi.ref, dest, "--platform", platform).ok()
    holds(dest, {"which": which.encode()})
    assert marker(dest)["digest"] == multi.digest


def test_index_default_is_this_machine(multi, fetcher, dest):
    fetcher.pull(multi.ref, dest).ok()
    holds(dest, {"which": {"x86_64": b"amd64", "aarch64": b"arm64"}[os.uname().machine]})


def test_index_without_the_platform_names_both(multi, fetcher, dest):
    words = last_words(fetcher.pull(multi.ref, dest, "--platform", "linux/s390x").exits(25))
    assert "s390x" in words and "arm64" in words
    nothing_published(dest)


def test_another_platform_is_another_selection(multi, fetcher, dest):
    """Same digest, other files: not up to date."""
    fetcher.pull(multi.ref, dest, "--platform", "linux/amd64").ok()
    fetcher.pull(multi.ref, dest, "--platform", "linux/arm64").ok()
    holds(dest, {"which": b"arm64"})


def test_index_without_platforms(registry, fetcher, dest):
    """A sole entry is taken. [C10]"""
    one = put_files(registry, "pull/plain-index", "one", {"a": b"x"})
    p = put_index(registry, "pull/plain-index", "v1", [(one, None)])
    fetcher.pull(p.ref, dest).ok()
    holds(dest, {"a": b"x"})


def test_index_without_platforms_and_with_a_choice_is_refused(registry, fetcher, dest):
    repo = "pull/plain-index2"
    two = [(put_files(registry, repo, t, {"a": t.encode()}), None) for t in ("one", "two")]
    p = put_index(registry, repo, "v1", two)
    fetcher.pull(p.ref, dest).exits(25)
    nothing_published(dest)


def test_nested_index(registry, fetcher, dest):
    repo = "pull/nested"
    leaf = put_files(registry, repo, "leaf", {"a": b"x"})
    inner = put_index(registry, repo, "inner", [(leaf, PLATFORMS["amd64"])])
    p = put_index(registry, repo, "v1", [(inner, None)], entry_type=oci.INDEX)
    fetcher.pull(p.ref, dest, "--platform", "linux/amd64").ok()
    holds(dest, {"a": b"x"})


def test_index_in_index_beyond_the_cap(faults, fetcher, dest):
    """No recursion without end; a real cycle cannot be made without breaking SHA-256. [C10]"""
    art = faults.artifact({"a": b"x"})
    digest, kind, size = art.digest, oci.MANIFEST, len(faults.manifests[art.digest].body)
    for _ in range(12):
        body = json.dumps(oci.index([{"mediaType": kind, "digest": digest, "size": size}])).encode()
        digest, kind, size = faults.manifest(body, oci.INDEX, tag="v1"), oci.INDEX, len(body)
    fetcher.pull(faults.ref("v1"), dest).exits(22)
    nothing_published(dest)


def test_empty_index(faults, fetcher, dest):
    faults.manifest(oci.index([]), tag="v1")
    fetcher.pull(faults.ref(), dest).exits(25)


def docker_manifest(registry, repo, tag, files):
    config = json.dumps({"architecture": "amd64", "os": "linux"}).encode()
    layers = [oci.titled(b, n, "application/vnd.docker.image.rootfs.diff.tar")
              for n, b in files.items()]
    body = {"schemaVersion": 2, "mediaType": oci.DOCKER_MANIFEST,
            "config": oci.descriptor(config, oci.DOCKER_CONFIG), "layers": layers}
    return registry.api.put_manifest(repo, tag, body, blobs=[config, *files.values()])


def test_docker_list(registry, fetcher, dest):
    """Docker schema 2 below a Docker list. [C9] [L45]"""
    repo = "pull/docker"
    body = {"schemaVersion": 2, "mediaType": oci.DOCKER_MANIFEST,
            "config": oci.descriptor(b"{}", "application/vnd.ollama.config"),
            "layers": [oci.titled(b"weights", "w.bin", "application/octet-stream")]}
    one = registry.api.put_manifest(repo, "one", body, blobs=[b"{}", b"weights"])
    fetcher.pull(one.ref, dest / "a").ok()
    holds(dest / "a", {"w.bin": b"weights"})
    p = put_index(registry, repo, "v1", [(one, PLATFORMS["amd64"])], media_type=oci.DOCKER_LIST,
                  entry_type=oci.DOCKER_MANIFEST)
    fetcher.pull(p.ref, dest / "b", "--platform", "linux/amd64").ok()
    holds(dest / "b", {"w.bin": b"weights"})


def test_container_image_that_is_no_archive(registry, fetcher, dest):
    """25, with the number of the layer and what its first bytes are."""
    config = json.dumps({"architecture": "amd64", "os": "linux"}).encode()
    kind = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    body = {"schemaVersion": 2, "mediaType": oci.DOCKER_MANIFEST,
            "config": oci.descriptor(config, oci.DOCKER_CONFIG),
            "layers": [oci.descriptor(b"not really", kind)]}
    p = registry.api.put_manifest("pull/image", "v1", body, blobs=[config, b"not really"])
    words = last_words(fetcher.pull(p.ref, dest).exits(25))
    assert "layer 1" in words and "gzip" in words
    nothing_published(dest)


def test_manifest_without_media_type(registry, fetcher, dest):
    """[C7] [L45]"""
    p = put_files(registry, "pull/no-type", "v1", {"a": b"x"}, mediaType=None, artifactType=None)
    fetcher.pull(p.ref, dest).ok()
    holds(dest, {"a": b"x"})


@pytest.mark.parametrize("value", [oci.MANIFEST + "; charset=utf-8", oci.MANIFEST + " ;charset=x",
                                   oci.MANIFEST.title(), "application/json", "text/plain"])
def test_content_type_with_parameters(faults, fetcher, dest, value):
    """[C8]; an unspecific type does not hide what the document says of itself."""
    art = faults.artifact({"a": b"x"})
    faults.rule("manifest", content_type=value)
    fetcher.pull(art.ref, dest).ok()
    holds(dest, {"a": b"x"})


def test_inline_data(faults, fetcher, dest):
    """The blob is not asked for. [C12]"""
    body = b'{"small": true}'
    layer = oci.titled(body, "config.json")
    layer["data"] = base64.b64encode(body).decode()
    faults.manifest(oci.manifest([layer]), tag="v1")
    fetcher.pull(faults.ref(), dest).ok()
    holds(dest, {"config.json": body})
    assert faults.gets("blob") == []


@pytest.mark.parametrize("lie", [b'{"small": frue}', b"{}", b""])
def test_inline_data_that_lies_is_not_used(faults, fetcher, dest, lie):
    body = b'{"small": true}'
    faults.blob(body)
    layer = oci.titled(body, "config.json")
    layer["data"] = base64.b64encode(lie).decode()
    faults.manifest(oci.manifest([layer]), tag="v1")
    r = fetcher.pull(faults.ref(), dest)
    assert r.rc in (0, 22), r
    if r.rc == 0:
        holds(dest, {"config.json": body})
    else:
        nothing_published(dest)


def test_sha512_digests(faults, fetcher, dest):
    """Layers and the manifest itself. [L46]"""
    body = Content(55, 3 * MIB + 7).bytes()
    small = b"small"
    layers = []
    for name, content in (("w.bin", body), ("s", small)):
        digest = faults.blob(content, alg="sha512")
        layers.append({"mediaType": oci.LAYER, "digest": digest, "size": len(content),
                       "annotations": {oci.TITLE: name}})
    digest = faults.manifest(oci.manifest(layers), alg="sha512")
    r = fetcher.pull(faults.ref(digest), dest, "--range-size", "512KiB").ok()
    holds(dest, {"w.bin": body, "s": small})
    assert marker(dest)["digest"] == digest, r
    fetcher("verify", dest).ok()


def test_unknown_digest_algorithm(faults, fetcher, dest):
    """A clean error. [C5]"""
    layer = {**oci.titled(b"x", "a"), "digest": "blake3:" + "0" * 64}
    faults.manifest(oci.manifest([layer]), tag="v1")
    assert "blake3" in last_words(fetcher.pull(faults.ref(), dest).exits(25))
    assert faults.gets("blob") == []


def test_foreign_urls_are_ignored(faults, stranger, fetcher, dest):
    """Content comes from the registry that was asked, or not at all. [C30] [K32]"""
    body = data(3, 1000)
    layer = {**oci.titled(body, "a"), "urls": [f"{stranger.base}/foreign"]}
    faults.blob(body)
    faults.manifest(oci.manifest([layer]), tag="v1")
    fetcher.pull(faults.ref(), dest).ok()
    holds(dest, {"a": body})
    assert stranger.requests == []


# -- ModelPack -----------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True])
def test_modelpack_raw_layers(registry, fetcher, dest, legacy):
    """Paths, modes and mtimes; setuid is dropped; uid and gid are not followed. [L22-L26]"""
    body, script = data(1, 70_000), b"#!/bin/sh\n"
    layers = [oci.modelpack(body, "weights/model.safetensors", legacy=legacy, mode=0o640,
                            mtime="2024-02-03T04:05:06.789012345Z", uid=12345, gid=12345),
              oci.modelpack(script, "run.sh", "application/vnd.cncf.model.code.v1.raw",
                            legacy=legacy, mode=0o4755, mtime="2024-02-03T06:05:06+02:00"),
              oci.modelpack(b"", "empty", "application/vnd.cncf.model.doc.v1.raw", legacy=legacy,
                            mode=0o600, mtime="1970-01-01T00:00:00Z")]
    config = b'{"descriptor":{},"modelfs":{"type":"layers","diffIds":[]},"config":{}}'
    kind = oci.MODELPACK.replace("cncf", "cnai") if legacy else oci.MODELPACK
    configured = oci.descriptor(config, oci.MODELPACK_CONFIG)
    p = registry.api.put_manifest(f"pull/modelpack-{int(legacy)}", "v1", oci.manifest(
        layers, config=configured, artifact_type=kind), blobs=[body, script, b"", config])
    fetcher.pull(p.ref, dest, umask=0o077).ok()
    holds(dest, {"weights/model.safetensors": body, "run.sh": script, "empty": b""})
    seen = {n: (dest / n).stat() for n in ("weights/model.safetensors", "run.sh", "empty")}
    assert [stat.S_IMODE(s.st_mode) for s in seen.values()] == [0o640, 0o755, 0o600]
    stamp = 1706933106
    assert seen["weights/model.safetensors"].st_mtime_ns == stamp * 10**9 + 789012345
    assert seen["run.sh"].st_mtime_ns == stamp * 10**9
    assert seen["empty"].st_mtime_ns == 0
    assert {s.st_uid for s in seen.values()} == {os.getuid()}
    assert marker(dest)["artifactType"] == kind
    fetcher("verify", dest).ok()


def test_one_content_with_two_modes(registry, wire, fetcher, dest):
    """Two names of one digest may be one inode, but not when their modes or mtimes differ."""
    body = data(2, 70_000)
    layers = [oci.modelpack(body, "a", mode=0o644, mtime="2024-01-01T00:00:00Z"),
              oci.modelpack(body, "b", mode=0o755, mtime="2025-01-01T00:00:00Z"),
              oci.modelpack(body, "c", mode=0o444, mtime="2024-01-01T00:00:00Z")]
    p = registry.api.put_manifest("pull/two-modes", "v1", oci.manifest(
        layers, artifact_type=oci.MODELPACK), blobs=[body])
    fetcher.pull(p.on(wire), dest).ok()
    seen = {n: (dest / n).stat() for n in "abc"}
    assert [stat.S_IMODE(s.st_mode) for s in seen.values()] == [0o644, 0o755, 0o444]
    assert [int(s.st_mtime) for s in seen.values()] == [1704067200, 1735689600, 1704067200]
    assert wire.body("/blobs/") == len(body)
    fetcher("probe", dest).ok()
    fetcher("verify", dest).ok()


def test_modelpack_path_wins_over_title(registry, fetcher, dest):
    """org.cncf.model.filepath, then org.cnai.model.filepath, then the title."""
    a, b, c = b"first", b"second", b"third"
    one = oci.modelpack(a, "cncf/a")
    one["annotations"].update({oci.TITLE: "title-a", "org.cnai.model.filepath": "cnai/a"})
    two = oci.modelpack(b, "cnai/b", legacy=True)
    two["annotations"][oci.TITLE] = "title-b"
    three = oci.titled(c, "title-c", oci.MODELPACK_WEIGHT)
    p = registry.api.put_manifest("pull/precedence", "v1", oci.manifest(
        [one, two, three], artifact_type=oci.MODELPACK), blobs=[a, b, c])
    fetcher.pull(p.ref, dest).ok()
    holds(dest, {"cncf/a": a, "cnai/b": b, "title-c": c})


def test_modelpack_metadata_that_is_broken(registry, fetcher, dest):
    """The file is placed all the same, with a warning. The descriptor's size wins. [L23-L25]"""
    a, b, c = b"aaaa", b"bbbb", b"cccc"
    one = oci.modelpack(a, "a")
    one["annotations"][oci.METADATA] = "{not json"
    two = oci.modelpack(b, "b", mtime="0001-01-01T00:00:00Z")
    three = oci.modelpack(c, "c", size=99999999)
    p = registry.api.put_manifest("pull/broken-meta", "v1", oci.manifest(
        [one, two, three], artifact_type=oci.MODELPACK), blobs=[a, b, c])
    r = fetcher.pull(p.ref, dest).ok()
    holds(dest, {"a": a, "b": b, "c": c})
    assert any(line["level"] == "warn" for line in r.log), r
    assert (dest / "b").stat().st_mtime > 1_600_000_000


@pytest.mark.parametrize("kind, rc", [("application/vnd.cncf.model.weight.v1.tar", 22),
                                      ("application/vnd.cncf.model.dataset.v1.tar+gzip", 25),
                                      ("application/vnd.cncf.model.weight.v1.tar+zstd", 25)])
def test_modelpack_layers_that_are_no_archives(registry, fetcher, dest, kind, rc):
    """[L31] Named by their number; the file beside them is not published either."""
    raw = oci.modelpack(b"raw", "raw.bin")
    tar = oci.modelpack(b"tar", "folder", kind)
    p = registry.api.put_manifest("pull/tar-" + oci.digest_of(kind.encode())[7:13], "v1",
                                  oci.manifest([raw, tar], artifact_type=oci.MODELPACK),
                                  blobs=[b"raw", b"tar"])
    assert "layer 2" in last_words(fetcher.pull(p.ref, dest).exits(rc))
    nothing_published(dest)
    assert partials(dest) == {}


def test_oras_folder_layer_that_is_no_archive(registry, fetcher, dest):
    layer = oci.titled(b"gz", "folder", "application/vnd.oci.image.layer.v1.tar+gzip")
    layer["annotations"]["io.deis.oras.content.unpack"] = "true"
    p = registry.api.put_manifest("pull/folder", "v1", oci.manifest([layer]), blobs=[b"gz"])
    assert "gzip" in last_words(fetcher.pull(p.ref, dest).exits(25))


def test_plain_file_typed_as_tar_is_a_file(registry, fetcher, dest):
    """As oras types it by default; it is not opened. [L33]"""
    p = put_files(registry, "pull/typed-tar", "v1", {"model.gguf": b"GGUF not a tar"})
    fetcher.pull(p.ref, dest).ok()
    holds(dest, {"model.gguf": b"GGUF not a tar"})


@pytest.mark.parametrize("layers", [[], [oci.descriptor(b"x")], [oci.descriptor(b"{}", oci.EMPTY)]],
                         ids=["none", "untitled", "empty-descriptor"])
def test_nothing_to_lay_out_is_an_error(faults, fetcher, dest, layers):
    """Never a silent success. [L35] [L36]"""
    faults.blob(b"x")
    faults.blob(b"{}")
    faults.manifest(oci.manifest(layers), tag="v1")
    fetcher.pull(faults.ref(), dest).exits(25)
    nothing_published(dest)


# -- names ---------------------------------------------------------------------------------------

BAD_NAMES = ["../a", "../../a", "a/../../b", "/etc/passwd", "//a", "", ".", "..", "a/", "a/b/",
             "x" * 256, "a/" + "x" * 256, "/".join(["x" * 100] * 50), "/".join(["d"] * 200), "a\0b",
             "a\nb", "a\x1b[2Jb", "\x7f", ".fetcher/ready.json", ".fetcher", "./.fetcher/x",
             "current/../../x"]


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda n: repr(n)[:24])
def test_unsafe_names_are_refused(faults, fetcher, dest, name):
    """Before a byte moves. [L12-L17] [C36] [K37]"""
    art = faults.artifact({"good": b"x", "bad": b"y"}, annotate=lambda t: {
        oci.TITLE: name if t == "bad" else t})
    # A NUL cannot even be in a string of the manifest: that is refused as such (22).
    r = fetcher.pull(art.ref, dest).exits(22 if "\0" in name else 24)
    assert "\x1b" not in r.err and "\0" not in last_words(r)
    assert faults.gets("blob") == []
    nothing_published(dest)
    assert not (dest.parent / "a").exists() and not (dest.parent / "b").exists()


@pytest.mark.parametrize("name", BAD_NAMES[:8], ids=lambda n: repr(n)[:24])
def test_unsafe_modelpack_paths_are_refused(faults, fetcher, dest, name):
    layer = oci.modelpack(b"y", "ok")
    layer["annotations"][oci.FILEPATH] = name
    layer["annotations"][oci.TITLE] = "harmless"
    faults.blob(b"y")
    faults.manifest(oci.manifest([layer], artifact_type=oci.MODELPACK), tag="v1")
    fetcher.pull(faults.ref(), dest).exits(24)
    nothing_published(dest)


@pytest.mark.parametrize("name, lands", [("./a", "a"), ("a//b", "a/b"), ("v1..2.bin", "v1..2.bin"),
                                         ("..data", "..data"), ("a\\b", "a\\b"),
                                         ("x" * 255, "x" * 255), ("-rf", "-rf"),
                                         ("a b/ c", "a b/ c")], ids=lambda n: repr(n)[:24])
def test_odd_names_are_kept(faults, fetcher, dest, name, lands):
    """[L16]: dots inside a name are no escape."""
    art = faults.artifact({"w": b"x"}, annotate=lambda t: {oci.TITLE: name})
    fetcher.pull(art.ref, dest).ok()
    holds(dest, {lands: b"x"})


def place_all(faults, names):
    """One layer per (name, content)."""
    layers = []
    for name, body in names:
        faults.blob(body)
        layers.append(oci.titled(body, name))
    faults.manifest(oci.manifest(layers), tag="v1")
    return faults.ref()


@pytest.mark.parametrize("names", [
    [("a", b"1"), ("a", b"2")],
    [("a/b", b"1"), ("./a//b", b"2")],
    [("a", b"1"), ("a/b", b"2")],
    [("a/b/c", b"1"), ("a/b", b"1")],
], ids=["same", "after-cleaning", "file-and-folder", "file-and-folder-same-content"])
def test_colliding_names_are_refused(faults, fetcher, dest, names):
    """[L8-L10]: never the last one wins."""
    fetcher.pull(place_all(faults, names), dest).exits(24)
    assert faults.gets("blob") == []
    nothing_published(dest)


def test_one_path_twice_with_one_content_is_fine(faults, fetcher, dest):
    fetcher.pull(place_all(faults, [("a", b"1"), ("./a", b"1"), ("b", b"2")]), dest).ok()
    holds(dest, {"a": b"1", "b": b"2"})


# -- choosing ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chosen(registry):
    files = {"config.json": b"c", "tokenizer.json": b"t", "model-1.safetensors": b"m1",
             "original/params.json": b"p", "original/deep/w.pth": b"w", "w[1].bin": b"odd"}
    return put_files(registry, "pull/globs", "v1", files), files


@pytest.mark.parametrize("flags, names", [
    (["--include", "*.json"], {"config.json", "tokenizer.json", "original/params.json"}),
    (["--include", "*.json", "--include", "*.safetensors"],
     {"config.json", "tokenizer.json", "original/params.json", "model-1.safetensors"}),
    (["--include", "original/*"], {"original/params.json"}),
    (["--include", "original/**"], {"original/params.json", "original/deep/w.pth"}),
    (["--exclude", "original/"], {"config.json", "tokenizer.json", "model-1.safetensors",
                                  "w[1].bin"}),
    (["--include", "*.json", "--exclude", "tok*"], {"config.json", "original/params.json"}),
    (["--include", "**/*.json"], None),
    (["--include", r"w\[1\].bin"], {"w[1].bin"}),
    (["--include", "model-[0-9].*"], {"model-1.safetensors"}),
], ids=lambda x: " ".join(x) if isinstance(x, list) else "")
def test_include_and_exclude(chosen, fetcher, dest, flags, names):
    """[L48]"""
    p, files = chosen
    fetcher.pull(p.ref, dest, *flags).ok()
    if names is None:
        assert "original/params.json" in files_in(dest)
    else:
        holds(dest, {n: files[n] for n in names})
    assert marker(dest)["files"] == len(files_in(dest))


def test_globs_that_match_nothing(chosen, fetcher, dest):
    p, _ = chosen
    fetcher.pull(p.ref, dest, "--include", "*.gguf").exits(25)
    fetcher.pull(p.ref, dest, "--exclude", "**").exits(25)
    nothing_published(dest)


def test_excluded_layers_need_not_be_supported(registry, fetcher, dest):
    """An unsafe name stays an error even when it would be left out; a tar that is left out is not."""
    tar = oci.modelpack(b"tar", "folder", "application/vnd.cncf.model.doc.v1.tar")
    raw = oci.modelpack(b"raw", "raw.bin")
    p = registry.api.put_manifest("pull/exclude-tar", "v1", oci.manifest(
        [raw, tar], artifact_type=oci.MODELPACK), blobs=[b"raw", b"tar"])
    fetcher.pull(p.ref, dest, "--exclude", "folder").ok()
    holds(dest, {"raw.bin": b"raw"})


def test_another_selection_fetches_what_is_missing(chosen, fetcher, wire, dest):
    p, files = chosen
    fetcher.pull(p.on(wire), dest, "--include", "config.json").ok()
    wire.reset()
    fetcher.pull(p.on(wire), dest).ok()
    holds(dest, files)
    asked = "".join(r.target for r in wire.gets("/blobs/"))
    assert oci.digest_of(b"c") not in asked and oci.digest_of(b"t") in asked


# -- limits that are told before the first byte --------------------------------------------------


def test_max_bytes(registry, push, wire, fetcher, dest):
    p = push(registry, "pull/max", "v1", {"a": data(1, 3000), "b": data(2, 2000)})
    words = last_words(fetcher.pull(p.on(wire), dest, "--max-bytes", "4999").exits(23))
    assert "4999" in words or "4.8" in words
    assert wire.gets("/blobs/") == []
    nothing_published(dest)
    fetcher.pull(p.on(wire), dest, "--max-bytes", "3000", "--include", "a").ok()
    fetcher.pull(p.on(wire), dest, "--max-bytes", "5000").ok()


def test_more_than_the_disk_holds(faults, fetcher, dest):
    """Free space is looked at before the first byte; sparse preallocation is no answer."""
    layers = [{"mediaType": oci.LAYER, "digest": oci.digest_of(b"%d" % i), "size": 1 << 44,
               "annotations": {oci.TITLE: f"w{i}"}} for i in range(4)]
    faults.manifest(oci.manifest(layers), tag="v1")
    fetcher.pull(faults.ref(), dest).exits(23)
    assert faults.gets("blob") == []
    nothing_published(dest)
    assert partials(dest) == {}


# -- more than one -------------------------------------------------------------------------------


def test_storage_initializer_form(registry, push, fetcher, tmp_path):
    """SRC DEST [SRC DEST ...] without a command, as KServe calls it."""
    a = push(registry, "pull/pair-a", "v1", {"a": b"1"})
    b = push(registry, "pull/pair-b", "v1", {"b": b"2"})
    env = {"FETCHER_PLAIN_HTTP": "true"}
    fetcher(a.ref, tmp_path / "x", b.ref, tmp_path / "y", env=env).ok()
    holds(tmp_path / "x", {"a": b"1"})
    holds(tmp_path / "y", {"b": b"2"})
    fetcher("oci://" + a.ref, tmp_path / "z", env=env).ok()
    holds(tmp_path / "z", {"a": b"1"})


def test_pairs_end_at_the_first_failure(registry, push, fetcher, tmp_path):
    a = push(registry, "pull/pair-a", "v1", {"a": b"1"})
    r = fetcher("pull", "--plain-http", "--output", "json", a.ref, tmp_path / "x",
                f"{registry.host}/pull/none:v1", tmp_path / "y", a.ref, tmp_path / "z").exits(21)
    holds(tmp_path / "x", {"a": b"1"})
    assert len(r.out.splitlines()) == 1
    assert not (tmp_path / "z").exists()


def test_dest_by_option(registry, push, fetcher, dest):
    p = push(registry, "pull/pair-a", "v1", {"a": b"1"})
    fetcher("pull", "--plain-http", p.ref, "-o", dest).ok()
    holds(dest, {"a": b"1"})


def test_relative_and_deep_dest(registry, push, fetcher, tmp_path):
    p = push(registry, "pull/pair-a", "v1", {"a": b"1"})
    fetcher.pull(p.ref, "not/yet/there", cwd=tmp_path).ok()
    holds(tmp_path / "not/yet/there", {"a": b"1"})
    fetcher.pull(p.ref, ".", cwd=_made(tmp_path / "here")).ok()
    holds(tmp_path / "here", {"a": b"1"})


def _made(path):
    path.mkdir()
    return path


def test_dest_may_be_a_link_to_a_folder(registry, push, fetcher, tmp_path):
    """DEST itself is the user's to name; what lies below it is not the artifact's to lead away."""
    p = push(registry, "pull/pair-a", "v1", {"a": b"1"})
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    fetcher.pull(p.ref, tmp_path / "link").ok()
    holds(tmp_path / "real", {"a": b"1"})
