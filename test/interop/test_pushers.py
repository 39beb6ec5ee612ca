# SPDX-License-Identifier: Apache-2.0
"""Artifacts that other clients than oras pushed: regctl, and what crane copied."""
import pytest

from lib.content import Content
from lib.look import holds, marker
from lib.registry import Registry
from tools import Tool, stage

from conftest import find_tool

FILES = {"config.json": b'{"a": 1}', "model 1.safetensors": Content(71, (5 << 20) + 3), "empty": b"",
         "deep/down/tokenizer.json": b"[]"}


@pytest.fixture
def regctl(tmp_path, registry):
    program = find_tool("regctl")
    tool = Tool(program, tmp_path / "regctl")
    tool("registry", "set", "--tls=disabled", registry.host)
    return tool


@pytest.fixture
def crane(tmp_path):
    return Tool(find_tool("crane"), tmp_path / "crane", "--insecure")


def put(regctl, ref, folder, files, *flags):
    named = [word for name in files for word in ("--file", name, "--file-media-type", "application/octet-stream")]
    regctl("artifact", "put", "--artifact-type", "application/vnd.example.model", "--file-title", *named, *flags, ref,
           cwd=stage(folder, files))


def test_regctl_artifact(regctl, registry, fetcher, tmp_path, dest):
    ref = f"{registry.host}/interop/regctl:v1"
    put(regctl, ref, tmp_path / "model", FILES)
    fetcher.pull(ref, dest).ok()
    holds(dest, FILES)
    assert marker(dest)["digest"] == regctl("manifest", "head", ref)
    assert marker(dest)["artifactType"] == "application/vnd.example.model"


def test_regctl_index_by_platform(regctl, registry, fetcher, tmp_path, dest):
    repo = f"{registry.host}/interop/platforms"
    for arch in ("amd64", "arm64"):
        put(regctl, f"{repo}:{arch}", tmp_path / arch, {"arch.txt": arch.encode()})
        regctl("index", "add" if arch == "arm64" else "create", f"{repo}:all", "--ref", f"{repo}:{arch}",
               "--desc-platform", f"linux/{arch}")
    fetcher.pull(f"{repo}:all", dest, "--platform", "linux/arm64").ok()
    holds(dest, {"arch.txt": b"arm64"})
    fetcher.pull(f"{repo}:all", tmp_path / "none", "--platform", "linux/riscv64").exits(25)


def test_crane_copies_between_registries(crane, registry, start, push, fetcher, dest):
    other = start(Registry, "copies")
    pushed = push(registry, "interop/original", "v1", FILES)
    copy = f"{other.host}/interop/copy:v1"
    crane("copy", pushed.ref, copy)
    assert crane("digest", copy) == pushed.digest
    assert pushed.digest in fetcher("resolve", "--plain-http", copy).ok().out
    fetcher.pull(copy, dest).ok()
    holds(dest, FILES)
