# SPDX-License-Identifier: Apache-2.0
"""Every producer's artifact, from push to the files that a server reads: byte by byte what was packed, in both layouts, once.
Shapes that need a producer which cannot run here come from lib/producers.py; oras, podman and skopeo are the real ones.
Numbers such as [L12] are the cases of the reference on artifact layouts."""

import json
import os
import shutil
import stat
import subprocess

import pytest

from lib import oci, producers
from lib.content import files_in, tree
from lib.look import holds, last_words, marker, nothing_published, partials
from lib.proc import command, part
from lib.registry import Registry
from lib.relay import Relay
from test_image import Podman, release_store

MODEL = producers.model()
# AIKit's rule of the base name only shows with weights in a directory
NESTED = {**{f"org/{n}" if n.endswith(".safetensors") else n: b for n, b in MODEL.items()},
          "org/extra.gguf": producers.gguf(5, 90_000)}

MADE = {
    **{f"modelpack-{prefix}-{packing}": lambda packing=packing, prefix=prefix: producers.modelpack(MODEL, packing, prefix)
       for prefix in ("cncf", "cnai") for packing in ("raw", *producers.PACKINGS)},
    "modelpack-cncf-20-types": lambda: producers.modelpack_all_types("cncf"),
    "modelpack-cnai-20-types": lambda: producers.modelpack_all_types("cnai"),
    **{f"aikit-{packing}": lambda packing=packing: producers.aikit(NESTED, packing) for packing in ("raw", *producers.PACKINGS)},
    **{f"aikit-generic-{packing}": lambda packing=packing: producers.aikit_generic(NESTED, packing)
       for packing in ("raw", *producers.PACKINGS)},
    "kitops": lambda: producers.kitops(MODEL),
    "kitops-plain-tar": lambda: producers.kitops(MODEL, "tar"),
    "kitops-old": lambda: producers.kitops(MODEL, old=True),
    "kitops-old-nested": producers.kitops_nested_old,
    "docker-v0.2": lambda: producers.docker_runner(MODEL),
    "docker-v0.1": lambda: producers.docker_runner(MODEL, "v0.1"),
    "docker-v0.1-gguf": producers.docker_gguf,
    "ollama": producers.ollama,
    "ollama-tensors": lambda: producers.ollama_tensors(MODEL),
    "ramalama-artifact": lambda: producers.ramalama_artifact(MODEL),
    "ramalama-car": lambda: producers.ramalama_car(producers.gguf_model()),
    **{f"modelcar-{packing}": lambda packing=packing: producers.modelcar(MODEL, packing) for packing in producers.PACKINGS},
    "modelcar-docker": lambda: producers.modelcar(MODEL, docker=True),
    "olot-tar": lambda: producers.olot(MODEL),
    "olot-tar+gzip": lambda: producers.olot(MODEL, "tar+gzip"),
    "oras-folder": lambda: producers.oras_folder("model", MODEL),
}


@pytest.fixture(scope="module")
def pushed(registry):
    """pushed(name) -> (Pushed, Made), each pushed once."""
    done = {}

    def go(name):
        if name not in done:
            made = MADE[name]()
            done[name] = producers.put(registry, "producers/" + name.replace("+", "-"), "v1", made), made
        return done[name]
    return go


def as_packed(base, made):
    """Exactly the files, byte by byte, and the links; links lead to something."""
    holds(base, made.files)
    assert producers.links_in(base) == made.links
    for link in made.links:
        assert (base / link).exists(), link


@pytest.mark.parametrize("layout", ["flat", "versions"])
@pytest.mark.parametrize("name", MADE)
def test_lands_as_it_was_packed(pushed, wire, fetcher, dest, name, layout):
    """Each blob crosses the wire once, nothing is left over, and the second pull asks for none. [L45]"""
    p, made = pushed(name)
    fetcher.pull(p.on(wire), dest, "--layout", layout).ok()
    base = dest if layout == "flat" else dest / "current"
    as_packed(base, made)
    m = marker(dest)
    assert m["digest"] == p.digest and m["files"] == len(made.files) + len(made.links)
    assert m["downloaded"] == sum({x["digest"]: x["size"] for x in made.layers if "data" not in x}.values())
    asked = {r.target.rsplit("/", 1)[1] for r in wire.gets("/blobs/")}
    assert asked - {made.manifest["config"]["digest"]} == {x["digest"] for x in made.layers}
    assert partials(dest) == {}
    fetcher("verify", dest).ok()
    wire.reset()
    again = fetcher.pull(p.on(wire), dest, "--layout", layout, "--output", "json").ok().json
    assert again["upToDate"] is True and wire.gets("/blobs/") == []


@pytest.mark.parametrize("name", MADE)
def test_ls_shows_it_before_a_layer_moves(pushed, wire, fetcher, name):
    p, made = pushed(name)
    seen = fetcher("ls", "--plain-http", "--output", "json", p.on(wire)).ok().json
    assert seen["digest"] == p.digest
    assert {f["path"] for f in seen["files"]} <= set(made.files)
    assert len(seen["layers"]) == made.unpacked
    for layer in seen["layers"]:
        assert layer["digest"] == made.layers[layer["layer"] - 1]["digest"] and layer["unpack"].startswith("tar"), layer
    if not made.unpacked:
        assert {f["path"]: f["digest"] for f in seen["files"]} == {n: oci.digest_of(b) for n, b in made.files.items()}
    asked = {r.target.rsplit("/", 1)[1] for r in wire.gets("/blobs/")}
    assert asked <= {made.manifest["config"]["digest"]}
    text = fetcher("ls", "--plain-http", p.ref).ok().out
    assert all(f["path"] in text for f in seen["files"])
    assert text.count("  tar ") == made.unpacked, text


def test_safetensors_and_gguf_are_whole(pushed, fetcher, dest):
    """What a server does first: the index names the shards, their headers fit their sizes, a GGUF has its magic."""
    for name, folder in (("modelpack-cncf-tar+zstd", ""), ("aikit-tar", "org"), ("modelcar-tar+gzip", "")):
        base = dest / name
        fetcher.pull(pushed(name)[0].ref, base).ok()
        index = json.loads((base / "model.safetensors.index.json").read_text())
        for tensor, shard in index["weight_map"].items():
            body = (base / folder / shard).read_bytes()
            n = int.from_bytes(body[:8], "little")
            offsets = json.loads(body[8:8 + n])
            assert max(x["data_offsets"][1] for x in offsets.values()) == len(body) - 8 - n and tensor in offsets
    fetcher.pull(pushed("ramalama-car")[0].ref, dest / "car").ok()
    assert (dest / "car/model.file").read_bytes()[:4] == b"GGUF"


def test_docker_model_runner_twice_the_same_file(registry, fetcher, dest):
    """DMR DuplicateRawAnnotationAllowed. [L7]"""
    body = b"the same"
    layers = [oci.modelpack(body, p, "application/vnd.docker.ai.model.file") for p in ("a.json", "b/a.json")]
    config = b'{"config": {}}'
    made = oci.manifest(layers, artifact_type=None, config=oci.descriptor(
        config, "application/vnd.docker.ai.model.config.v0.2+json"))
    p = registry.api.put_manifest("producers/dmr-twice", "v1", made, blobs=[body, config])
    fetcher.pull(p.ref, dest).ok()
    holds(dest, {"a.json": body, "b/a.json": body})


def test_kit_that_points_to_another_kit(registry, fetcher, dest):
    """Its model is elsewhere: an error that names it, not a success without weights. [L35]"""
    docs = producers.pack(producers.tar(producers.entry("README.md", b"x")), "tar+gzip")
    config = json.dumps({"model": {"path": "ghcr.io/org/base:v1"}, "docs": [{"path": "README.md"}]}).encode()
    body = oci.manifest([oci.descriptor(docs, "application/vnd.kitops.modelkit.docs.v1.tar+gzip")], artifact_type=None,
                        mediaType=None, config=oci.descriptor(config, "application/vnd.kitops.modelkit.config.v1+json"))
    p = registry.api.put_manifest("producers/kit-parent", "v1", body, blobs=[docs, config])
    assert "ghcr.io/org/base:v1" in last_words(fetcher.pull(p.ref, dest).exits(25))
    nothing_published(dest)
    fetcher.pull(p.ref, dest, "--type", "doc").ok()
    holds(dest, {"README.md": b"x"})


# -- oras itself ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A directory as people have them: nested, an empty file, a link, a hard link, a program, odd names."""
    top = tmp_path / "model dir"
    for name, body in {**MODEL, "a/b/c/d/deep.bin": producers.weights(9, 5000), "empty": b"", "sp ace/\u00e9.txt": b"u"}.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    (top / "code/run.sh").write_bytes(b"#!/bin/sh\n")
    (top / "code/run.sh").chmod(0o755)
    (top / "private").write_bytes(b"p")
    (top / "private").chmod(0o600)
    (top / "latest.safetensors").symlink_to("model-00002-of-00002.safetensors")
    (top / "a/up").symlink_to("../config.json")
    os.link(top / "README.md", top / "README-2.md")
    (top / "nothing").mkdir()
    os.utime(top / "config.json", (1700000000, 1700000000))
    return top


def oras_push(registry, repo, folder, *args):
    command("oras", "push", *registry.oras_flags(), "--no-tty", f"{registry.host}/{repo}:v1", *args, cwd=folder,
            env={"DOCKER_CONFIG": "/nonexistent"})
    return f"{registry.host}/{repo}:v1"


@pytest.mark.parametrize("layout", ["flat", "versions"])
def test_oras_directory(registry, wire, fetcher, folder, dest, layout):
    """Links stay links, hard links become files, modes and times are kept, an empty directory too. [L1] [L2] [L20] [L22]"""
    ref = oras_push(registry, "producers/oras-dir", folder.parent, "model dir")
    fetcher.pull(ref, dest, "--layout", layout, umask=0o077).ok()
    base = (dest if layout == "flat" else dest / "current") / "model dir"
    assert tree(base) == tree(folder)
    assert stat.S_IMODE((base / "code/run.sh").stat().st_mode) == 0o755
    assert stat.S_IMODE((base / "private").stat().st_mode) == 0o600
    assert (base / "config.json").stat().st_mtime == 1700000000
    fetcher("verify", dest).ok()
    assert fetcher.pull(ref.replace(registry.host, wire.host), dest, "--layout", layout).ok()
    assert wire.gets("/blobs/") == []


def test_oras_directory_as_oras_pulls_it(registry, fetcher, folder, tmp_path, dest):
    """The same names and contents, and both agree with --layout-as oras."""
    ref = oras_push(registry, "producers/oras-dir", folder.parent, "model dir", "model dir/config.json")
    command("oras", "pull", *registry.oras_flags(), "--no-tty", "-o", tmp_path / "theirs", ref, cwd=tmp_path,
            env={"DOCKER_CONFIG": "/nonexistent"})
    fetcher.pull(ref, dest, "--layout-as", "oras").ok()
    mine, theirs = tree(dest), tree(tmp_path / "theirs")
    assert mine == theirs


def test_oras_directory_called_dot(registry, fetcher, folder, dest):
    """Title ".": the content goes to the root. [L34]"""
    ref = oras_push(registry, "producers/oras-dot", folder, ".")
    fetcher.pull(ref, dest).ok()
    assert tree(dest) == tree(folder)


def test_oras_files_and_a_directory(registry, fetcher, folder, dest):
    """One artifact of both, and a plain file whose type says tar. [L33]"""
    (folder / "weights.tar").write_bytes(producers.tar(producers.entry("x", b"x")))
    ref = oras_push(registry, "producers/oras-both", folder, "config.json", "weights.tar", "code")
    fetcher.pull(ref, dest).ok()
    holds(dest, {"config.json": MODEL["config.json"], "weights.tar": (folder / "weights.tar").read_bytes(),
                 "code/modeling.py": MODEL["code/modeling.py"], "code/run.sh": b"#!/bin/sh\n"})


def test_artifact_that_skopeo_copied(registry, fetcher, push, tmp_path, dest):
    """Copied by skopeo from registry to registry the digest and the files are the same."""
    p = push(registry, "producers/oras-copy", "v1", MODEL)
    command("skopeo", "copy", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests",
            f"docker://{p.ref}", f"docker://{registry.host}/producers/skopeo-copy:v1", cwd=tmp_path)
    fetcher.pull(f"{registry.host}/producers/skopeo-copy:v1", dest).ok()
    holds(dest, MODEL)
    assert marker(dest)["digest"] == p.digest


# -- podman and skopeo ---------------------------------------------------------------------------

DOCKERFILE = """\
FROM scratch
COPY base/ /
COPY models/ /models/
COPY later/ /models/
"""
IMAGE = "localhost/fetcher:modelcar"
CAR = "producers/car:v1"
# how the layers' types end
SUFFIXES = {"gzip": ".tar+gzip", "zstd": ".tar+zstd", "docker": ".tar.gzip", "skopeo-zstd": ".tar+zstd",
            "skopeo-chunked": ".tar+zstd", "plain": ".tar"}


@pytest.fixture(scope="module")
def modelcar(start, tmp_path_factory):
    """A modelcar of three COPY layers by podman build, pushed with each compression: {name: registry}, its files, its links.
    A registry for each: podman and skopeo use again what one has, whatever its compression."""
    if not shutil.which("podman") or os.geteuid() != 0:
        pytest.skip("podman is not installed, or this is not root")
    top = tmp_path_factory.mktemp("modelcar")
    later = {"config.json": b'{"later": true}', "extra.bin": producers.weights(3, 10_000)}
    for part_of, files in (("base", {"etc/passwd": b"root\n", "bin/tool": b"x" * 9000}), ("models", MODEL), ("later", later)):
        for name, body in files.items():
            path = top / part_of / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
    (top / "models/link.safetensors").symlink_to("model-00001-of-00002.safetensors")
    (top / "models/absolute.json").symlink_to("/models/tokenizer.json")
    (top / "Dockerfile").write_text(DOCKERFILE)
    podman = Podman(str(tmp_path_factory.mktemp("podman")))
    built = podman.try_("build", "--pull=never", "--network=none", "-f", str(top / "Dockerfile"), "-t", IMAGE, str(top))
    if built.returncode:
        release_store()
        pytest.skip("podman cannot build here: " + (built.stderr.strip().splitlines() or ["?"])[-1])
    servers = {name: start(Registry, "modelcar-" + name) for name in SUFFIXES}
    for name, flags in {"gzip": ["--compression-format", "gzip", "--format", "oci"],
                        "zstd": ["--compression-format", "zstd", "--format", "oci"], "docker": ["--format", "v2s2"]}.items():
        podman("push", "-q", "--tls-verify=false", *flags, IMAGE, f"docker://{servers[name].host}/{CAR}")
    podman.try_("rmi", "-f", IMAGE)
    release_store()
    command("skopeo", "copy", "-q", "--insecure-policy", "--src-tls-verify=false", "--dest-decompress",
            f"docker://{servers['gzip'].host}/{CAR}", f"dir:{top}/plain", cwd=top)
    for name, format in (("skopeo-zstd", "zstd"), ("skopeo-chunked", "zstd:chunked")):
        command("skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", "--dest-compress-format", format,
                f"dir:{top}/plain", f"docker://{servers[name].host}/{CAR}", cwd=top)
    # to a registry skopeo always compresses
    plain = json.loads((top / "plain/manifest.json").read_text())
    blobs = [top / "plain" / x["digest"].removeprefix("sha256:") for x in (plain["config"], *plain["layers"])]
    servers["plain"].api.put_manifest(*CAR.split(":"), plain, blobs=blobs)
    links = {"link.safetensors": "model-00001-of-00002.safetensors", "absolute.json": "tokenizer.json"}
    return servers, {**MODEL, **later}, links


@pytest.mark.parametrize("layout", ["flat", "versions"])
@pytest.mark.parametrize("name", SUFFIXES)
def test_image_by_podman(modelcar, fetcher, dest, name, layout):
    """What is below /models, the later layer's files win, absolute links are rewritten. [L20] [L30] [L47]"""
    servers, files, links = modelcar
    accept = {"Accept": f"{oci.MANIFEST}, {oci.DOCKER_MANIFEST}"}
    manifest = json.loads(servers[name].api.request("GET", f"/v2/{CAR.replace(':', '/manifests/')}", headers=accept)[2])
    assert all(x["mediaType"].endswith(SUFFIXES[name]) for x in manifest["layers"]), manifest
    with Relay(servers[name]) as wire:
        fetcher.pull(f"{wire.host}/{CAR}", dest, "--layout", layout).ok()
        base = dest if layout == "flat" else dest / "current"
        holds(base, files)
        assert producers.links_in(base) == links
        assert (base / "absolute.json").read_bytes() == MODEL["tokenizer.json"]
        fetcher("verify", dest).ok()
        wire.reset()
        fetcher.pull(f"{wire.host}/{CAR}", dest, "--layout", layout).ok()
        assert wire.gets("/blobs/") == []


def test_whole_image_by_podman(modelcar, fetcher, dest):
    """--subdir /: the base as well; a link keeps its target's name."""
    servers, files, _ = modelcar
    fetcher.pull(f"{servers['gzip'].host}/{CAR}", dest, "--subdir", "/").ok()
    holds(dest, {**{"models/" + n: b for n, b in files.items()}, "etc/passwd": b"root\n", "bin/tool": b"x" * 9000})
    assert producers.links_in(dest)["models/absolute.json"] == "tokenizer.json"


def test_podman_artifact(registry, fetcher, tmp_path, dest):
    """podman 5: `podman artifact add`. The file is found by its title, or by what ramalama adds. [L6]"""
    program = shutil.which("podman") if not os.path.exists(part_path("podman")) else part_path("podman")
    if not program or b"--annotation" not in subprocess.run([program, "artifact", "add", "--help"], capture_output=True,
                                                            check=False).stdout:
        pytest.skip("this podman knows no artifacts (5.4 does)")
    for name in ("config.json", "model-00001-of-00002.safetensors"):
        (tmp_path / name).write_bytes(MODEL[name])
    ref = f"{registry.host}/producers/podman-artifact:v1"
    base = [program, "--root", str(tmp_path / "root"), "--runroot", str(tmp_path / "run"), "artifact"]
    for args in (["add", "--type", oci.MODELPACK, ref, str(tmp_path / "config.json")],
                 ["add", "--append", "--annotation", f"{oci.FILEPATH}=deep/model.safetensors", ref,
                  str(tmp_path / "model-00001-of-00002.safetensors")],
                 ["push", "-q", "--tls-verify=false", ref]):
        done = subprocess.run([*base, *args], cwd=tmp_path, capture_output=True, text=True, check=False)
        if "unknown flag: --append" in done.stderr:
            pytest.skip("this podman adds no second file to an artifact (5.5 does)")
        assert done.returncode == 0, done.stderr
    fetcher.pull(ref, dest).ok()
    holds(dest, {"config.json": MODEL["config.json"], "deep/model.safetensors": MODEL["model-00001-of-00002.safetensors"]})


def part_path(name):
    try:
        return part(name)
    except FileNotFoundError:
        return ""


# -- images by hand ------------------------------------------------------------------------------


def test_index_of_images(registry, fetcher, dest):
    """One image per architecture; a platform that is not there is named. [L43]"""
    entries = []
    for arch, seed in (("amd64", 1), ("arm64", 2)):
        made = producers.modelcar(producers.gguf_model(seed, 20_000))
        made.files["model.gguf"] = producers.gguf(seed, 20_000)
        p = producers.put(registry, "producers/index", arch, made)
        body = json.dumps(made.manifest).encode()
        entries.append({"mediaType": oci.MANIFEST, "digest": p.digest, "size": len(body),
                        "platform": {"os": "linux", "architecture": arch}})
    p = registry.api.put_manifest("producers/index", "v1", oci.index(entries))
    for arch, seed in (("amd64", 1), ("arm64", 2)):
        fetcher.pull(p.ref, dest, "--platform", "linux/" + arch).ok()
        holds(dest, {"model.gguf": producers.gguf(seed, 20_000)})
    assert "s390x" in last_words(fetcher.pull(p.ref, dest / "x", "--platform", "linux/s390x").exits(25))


def test_two_producers_in_one_directory_after_another(pushed, fetcher, dest):
    """The same model as image, ModelPack tar and raw: what stands there is reused, what is not there any more goes."""
    for name in ("modelcar-tar+zstd", "modelpack-cncf-tar", "modelpack-cncf-raw", "docker-v0.1", "modelcar-tar"):
        p, made = pushed(name)
        fetcher.pull(p.ref, dest).ok()
        as_packed(dest, made)
    assert set(files_in(dest)) == set(MODEL)
