# SPDX-License-Identifier: Apache-2.0
"""ModelPack artifacts that modctl built and pushed."""
import io
import os
import tarfile

import pytest

from lib.content import Content, files_in
from lib.look import holds
from lib.oci import FILEPATH, MODELPACK, MODELPACK_CONFIG, descriptor, manifest
from lib.proc import command
from tools import modctl, stage

from conftest import find_tool

FILES = {"config.json": b'{"model_type": "llama"}', "model-00001-of-00002.safetensors": Content(81, (9 << 20) + 5),
         "model-00002-of-00002.safetensors": Content(82, 1 << 20), "README.md": b"# A model\n", "empty.txt": b"",
         "code/deep/run.py": b"print(1)\n"}
MODELFILE = """\
NAME small
CONFIG config.json
MODEL *.safetensors
CODE code/deep/run.py
DOC README.md
DOC empty.txt
"""


@pytest.fixture
def tool(tmp_path):
    return modctl(find_tool("modctl"), tmp_path / "modctl")


@pytest.fixture
def model(tmp_path):
    folder = stage(tmp_path / "model", FILES)
    (folder / "Modelfile").write_text(MODELFILE)
    (folder / "code/deep/run.py").chmod(0o755)
    return folder


def build(tool, model, ref, *flags):
    tool("build", *flags, "-t", ref, ".", cwd=model)
    tool("push", "--plain-http", ref)


def test_raw_layers(tool, model, registry, wire, fetcher, dest):
    ref = f"{registry.host}/interop/modctl:raw"
    build(tool, model, ref)
    fetcher.pull(ref, dest).ok()
    holds(dest, FILES)
    for name in FILES:
        was, now = os.stat(model / name), os.stat(dest / name)
        assert now.st_mode == was.st_mode, name
        assert int(now.st_mtime) == int(was.st_mtime), name
    fetcher.pull(ref.replace(registry.host, wire.host), dest).ok()
    assert wire.gets("blobs") == []


def test_the_same_files_as_modctl_lays_out(tool, model, registry, fetcher, tmp_path, dest):
    ref = f"{registry.host}/interop/modctl:same"
    build(tool, model, ref)
    tool("pull", "--plain-http", "--extract-from-remote", "--extract-dir", tmp_path / "theirs", ref)
    fetcher.pull(ref, dest).ok()
    holds(tmp_path / "theirs", FILES)
    holds(dest, FILES)


def test_tar_layers(tool, model, registry, fetcher, tmp_path, dest):
    """modctl build --raw=false: both unpack them."""
    ref = f"{registry.host}/interop/modctl:tar"
    build(tool, model, ref, "--raw=false")
    tool("pull", "--plain-http", "--extract-from-remote", "--extract-dir", tmp_path / "theirs", ref)
    holds(tmp_path / "theirs", FILES)
    fetcher.pull(ref, dest)
    holds(dest, FILES)


@pytest.mark.slow
def test_compressed_tar_layers(tool, registry, fetcher, tmp_path, dest):
    """The specification has tar+gzip too, and other packagers write it. modctl tries it six times over two minutes."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        head = tarfile.TarInfo("w.bin")
        head.size = 5
        tar.addfile(head, io.BytesIO(b"bytes"))
    layer = descriptor(packed.getvalue(), "application/vnd.cncf.model.weight.v1.tar+gzip", annotations={FILEPATH: "w.bin"})
    pushed = registry.api.put_manifest("interop/modctl", "gzip", manifest(
        [layer], config=descriptor(b"{}", MODELPACK_CONFIG), artifact_type=MODELPACK), blobs=[packed.getvalue(), b"{}"])
    theirs = tool.run("pull", "--plain-http", "--extract-from-remote", "--extract-dir", tmp_path / "theirs", pushed.ref,
                      timeout=600)
    assert theirs.returncode != 0 and "unsupported codec" in theirs.stdout
    fetcher.pull(pushed.ref, dest)
    assert (dest / "w.bin").read_bytes() == b"bytes"


def test_oras_finds_no_file_in_it(tool, model, registry, fetcher, tmp_path):
    """modctl writes paths, oras looks for titles; it ends with success."""
    ref = f"{registry.host}/interop/modctl:oras"
    build(tool, model, ref)
    command("oras", "pull", "--plain-http", "--no-tty", "-o", tmp_path / "theirs", ref)
    assert files_in(tmp_path / "theirs") == {}
