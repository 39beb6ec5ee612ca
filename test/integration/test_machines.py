# SPDX-License-Identifier: Apache-2.0
"""The binary where it will run: another architecture, an empty root, installed by make."""

import os
import platform
import re
import shutil
import subprocess

import pytest

from lib.client import binary
from lib.content import Content
from lib.look import holds
from lib.proc import TOP

NATIVE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
CLEAN = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": "/nonexistent", "LC_ALL": "C",
         "MAKEFLAGS": ""}


def tool(*names):
    for name in names:
        if shutil.which(name):
            return shutil.which(name)
    pytest.skip(f"none of {', '.join(names)} is installed")


def make(*args):
    done = subprocess.run([tool("make", "gmake"), "-s", "-C", str(TOP), *args], env=CLEAN,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def arm64(monkeypatch):
    """The fetcher fixture runs the arm64 binary, under qemu-user where it must."""
    elf = TOP / "build" / "arm64" / "fetcher"
    if not elf.exists():
        pytest.skip(f"{elf} is not built (make ARCH=arm64)")
    words = [] if NATIVE == "arm64" else [tool("qemu-aarch64-static", "qemu-aarch64")]
    monkeypatch.setenv("FETCHER_BIN", " ".join([*words, str(elf)]))
    assert binary() == [*words, str(elf)]


def test_arm64_pulls_under_qemu(arm64, fetcher, registry, push, dest):
    files = {"config.json": b"{}", "w.bin": Content(4, (9 << 20) + 1), "empty": b""}
    p = push(registry, "machines/arm64", "v1", files)
    fetcher.pull(p.ref, dest, "--range-size", "1MiB", timeout=300).ok()
    holds(dest, files)
    fetcher("verify", dest, timeout=300).ok()
    fetcher("probe", dest).ok()


def test_arm64_speaks_tls_under_qemu(arm64, fetcher, registry, registry_tls, push, dest):
    files = {"w.bin": Content(4, (2 << 20) + 1)}
    p = push(registry, "machines/arm64-tls", "v1", files)
    fetcher("pull", "--ca-file", registry_tls.ca, p.on(registry_tls), dest, timeout=300).ok()
    holds(dest, files)
    fetcher("resolve", p.on(registry_tls), "--retry-timeout", "1s", timeout=60).exits(30)


def test_runs_in_an_empty_root_as_uid_65532(registry, push, tmp_path):
    """As FROM scratch gives it: a root that cannot be written, with nothing but the binary and what
    each container runtime puts into /dev; no /proc, /etc, /tmp. [K11]"""
    unshare, chroot = tool("unshare"), tool("chroot")
    if os.geteuid() != 0 or subprocess.run([unshare, "-m", "true"], capture_output=True).returncode:
        pytest.skip("mount namespaces need root")
    root = tmp_path / "root"
    (root / "models").mkdir(parents=True)
    (root / "models").chmod(0o777)
    (root / "dev").mkdir()
    for device in ("null", "random", "urandom"):
        (root / "dev" / device).touch()
    if len(binary()) != 1:
        pytest.skip("FETCHER_BIN is not one program")
    shutil.copy(binary()[-1], root / "fetcher")
    (root / "fetcher").chmod(0o755)
    script = ('root=$1; shift; mount --bind "$root" "$root" && '
              'mount --bind "$root/models" "$root/models" && '
              'for d in null random urandom; do mount --bind /dev/$d "$root/dev/$d" || exit; done; '
              'mount -o remount,bind,ro "$root" && '
              f'exec {chroot} --userspec=65532:65532 "$root" /fetcher "$@"')

    def inside(*args):
        done = subprocess.run([unshare, "-m", "sh", "-c", script, "x", str(root), *args], env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout
    files = {"config.json": b"{}", "d/w.bin": Content(4, (5 << 20) + 1)}
    p = push(registry, "machines/scratch", "v1", files)
    inside("pull", "--plain-http", p.ref, "/models/m")
    holds(root / "models" / "m", files)
    assert (root / "models" / "m" / "config.json").stat().st_uid == 65532
    inside("probe", "/models/m")
    inside("verify", "/models/m")
    inside("wait", "/models/m", "--", "/fetcher", "version")
    assert sorted(x.name for x in root.iterdir()) == ["dev", "fetcher", "models"]


def test_make_help_names_the_goals():
    text = make("help")
    for goal in ("all", "test", "bench", "demo", "install", "clean", "help"):
        assert re.search(rf"^ +{goal} ", text, re.M), goal


def test_make_install_puts_binary_and_man_page(tmp_path):
    if not (TOP / "build" / NATIVE / "fetcher").exists():
        pytest.skip("build/fetcher is not built")
    make("install", f"DESTDIR={tmp_path}", "PREFIX=/usr")
    installed = tmp_path / "usr/bin/fetcher"
    assert installed.read_bytes() == (TOP / "build" / NATIVE / "fetcher").read_bytes()
    assert installed.stat().st_mode & 0o777 == 0o755
    assert ".TH" in (tmp_path / "usr/share/man/man1/fetcher.1").read_text()
