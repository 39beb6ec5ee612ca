# SPDX-License-Identifier: Apache-2.0
"""What the build promises: a small, static, hardened binary that comes out the same twice, from pinned sources."""
import os
import platform
import re
import shutil
import subprocess

import pytest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NATIVE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
MIB = 1 << 20
ARCHES = [NATIVE] + (["arm64"] if NATIVE != "arm64" else [])


def path(*parts):
    return os.path.join(TOP, *parts)


def output(*argv, **more):
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more).stdout


def qemu():
    for name in ("qemu-aarch64-static", "qemu-aarch64"):
        if shutil.which(name):
            return name
    return None


def command(arch):
    """How a binary of that architecture is started here."""
    binary = path("build", arch, "fetcher")
    if arch == NATIVE:
        return [binary]
    if not qemu():
        pytest.skip("no qemu-user for arm64")
    return [qemu(), binary]


@pytest.fixture(params=ARCHES)
def arch(request):
    assert os.path.exists(path("build", request.param, "fetcher")), "make builds it before the tests"
    return request.param


def readelf(arch, *options, name="fetcher"):
    return output("readelf", "-W", *options, path("build", arch, name))


def test_size(arch):
    assert os.path.getsize(path("build", arch, "fetcher")) <= 3 * MIB


def test_static_pie(arch):
    assert re.search(r"Type:\s+DYN", readelf(arch, "-h"))
    assert "INTERP" not in readelf(arch, "-l")
    dynamic = readelf(arch, "-d")
    assert "NEEDED" not in dynamic
    assert re.search(r"FLAGS_1\).*PIE", dynamic)
    assert "TEXTREL" not in dynamic


def test_hardened(arch):
    segments = readelf(arch, "-l")
    assert "GNU_RELRO" in segments
    assert "BIND_NOW" in readelf(arch, "-d") or "NOW" in readelf(arch, "-d")
    stack = re.search(r"GNU_STACK.*", segments).group()
    assert re.search(r"\bRW\b", stack) and "RWE" not in stack
    assert not re.search(r"LOAD.*RWE", segments), "a segment is writable and executable"
    assert "__stack_chk_fail" in readelf(arch, "-s", name="fetcher.debug")
    assert "section headers" not in readelf(arch, "-s") and ".symtab" not in readelf(arch, "-S"), "not stripped"


def test_tells_nothing_of_the_build_machine(arch):
    with open(path("build", arch, "fetcher"), "rb") as f:
        data = f.read()
    for trace in (TOP.encode(), os.path.expanduser("~").encode() + b"/", b"/usr/lib/gcc"):
        if len(trace) > 2:
            assert trace not in data, trace


def test_fast_crypto_is_chosen(arch):
    """nettle picks its code at run time; where it cannot read the CPU's features it would silently be 10 times slower."""
    said = output(*command(arch), "version", env={"NETTLE_FAT_VERBOSE": "1"})
    if arch == "arm64":
        assert "hardware-accelerated sha256" in said and "hardware accelerated AES" in said, said
        return
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
        flags = set(re.search(r"^flags\s*:(.*)$", f.read(), re.M).group(1).split())
    for flag, name in (("aes", "using aes"), ("sha_ni", "using sha_ni"), ("pclmulqdq", "using pclmulqdq")):
        assert (flag in flags) == (name in said), said


def test_version(arch):
    with open(path("Makefile"), encoding="ascii") as f:
        version = re.search(r"^VERSION := (\S+)$", f.read(), re.M).group(1)
    assert version in output(*command(arch), "version")


def test_same_bytes_twice(tmp_path):
    """The modules compiled again, in another place; the libraries are the ones that stand there."""
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for name in os.listdir(TOP):
        if os.path.isfile(path(name)):
            shutil.copy2(path(name), copy / name)
    for name in ("crypto", "deps"):
        shutil.copytree(path(name), copy / name)
    (copy / "build" / NATIVE).mkdir(parents=True)
    for name in ("src", f"{NATIVE}/sysroot", f"{NATIVE}/stamp"):
        os.symlink(path("build", name), copy / "build" / name)
    said = output(path("build", NATIVE, "fetcher"), "version", env={})
    commit = re.search(r"\(([0-9a-f]+)\)", said)
    commit = commit.group(1) if commit else ""
    output("make", f"COMMIT={commit}", f"build/{NATIVE}/fetcher", cwd=copy, env=dict(os.environ, MAKEFLAGS=""))
    assert (copy / "build" / NATIVE / "fetcher").read_bytes() == open(path("build", NATIVE, "fetcher"), "rb").read()


def manifest():
    with open(path("deps", "manifest"), encoding="ascii") as f:
        return [line.split() for line in f if line.strip() and not line.startswith("#")]


def test_manifest_is_well_formed():
    names = [fields[0] for fields in manifest()]
    assert len(set(names)) == len(names)
    for fields in manifest():
        assert len(fields) == 7, fields
        assert re.fullmatch(r"[0-9a-f]{64}", fields[3]), fields
        assert fields[5].startswith("https://"), fields


def test_tarball_with_another_hash_stops_the_build(tmp_path):
    fields = next(f for f in manifest() if f[0] == "yyjson")
    shutil.copy(path("build", "src", fields[2]), tmp_path)
    env = dict(os.environ, FETCHER_SRC_DIR=str(tmp_path))
    subprocess.run([path("deps", "fetch.sh"), "yyjson"], env=env, check=True)
    with open(tmp_path / fields[2], "r+b") as f:
        f.seek(1000)
        byte = f.read(1)
        f.seek(1000)
        f.write(bytes([byte[0] ^ 1]))
    done = subprocess.run([path("deps", "fetch.sh"), "yyjson"], env=env, check=False, stderr=subprocess.PIPE, text=True)
    assert done.returncode != 0
    assert fields[2] in done.stderr and fields[3] in done.stderr


def test_notice_is_current():
    with open(path("NOTICE"), encoding="utf-8") as f:
        assert f.read() == output(path("deps", "notice.sh")), "run make notice"


ENTRIES = {
    "one line": ("sources.list", "deb http://deb.example/debian trixie main\n", "http://deb.example/debian"),
    "options": ("sources.list", "deb [arch=amd64 signed-by=/k.gpg] https://m.example/debian bookworm main contrib\n",
                "https://m.example/debian /k.gpg"),
    "comment first": ("sources.list", "# deb http://no.example/debian trixie main\ndeb http://a.example/d/ stable main\n",
                      "http://a.example/d/"),
    "security is not it": ("sources.list", "deb http://s.example/debian-security trixie-security main\n"
                           "deb http://a.example/debian trixie main\n", "http://a.example/debian"),
    "list.d": ("sources.list.d/x.list", "deb http://a.example/debian sid main", "http://a.example/debian"),
    "deb822": ("sources.list.d/debian.sources", "Types: deb\nURIs: http://a.example/debian\nSuites: trixie trixie-updates\n"
               "Components: main\nSigned-By: /usr/k.gpg\n\nTypes: deb\nURIs: http://b.example/debian-security\n"
               "Suites: trixie-security\nComponents: main\n", "http://a.example/debian /usr/k.gpg"),
    "deb822 disabled": ("sources.list.d/debian.sources", "Enabled: no\nTypes: deb\nURIs: http://a.example/debian\n"
                        "Suites: trixie\n\nTypes: deb\nURIs: http://b.example/debian\nSuites: bookworm\n",
                        "http://b.example/debian"),
    "ubuntu": ("sources.list", "deb http://archive.example/ubuntu noble main universe\n",
               "http://deb.debian.org/debian"),
    "none": ("sources.list", "", "http://deb.debian.org/debian"),
}


@pytest.mark.parametrize("kind", ENTRIES)
def test_debian_archive_is_found(kind, tmp_path):
    name, text, want = ENTRIES[kind]
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / name).write_text(text)
    done = subprocess.run([path("deps", "debian-entry.sh")], env=dict(os.environ, APT_ETC=str(tmp_path)), check=False,
                          stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0
    assert (done.stdout.strip() + " ").startswith(want + " "), done.stdout


def test_no_archive_address_in_the_repository():
    """The Debian archive is the machine's own, or Debian's public address; deps/manifest names only each source's own home."""
    homes = {re.match(r"https://[^/]+", f[5]).group() for f in manifest()}
    for name in filter(lambda n: os.path.isfile(path("deps", n)), os.listdir(path("deps"))):
        with open(path("deps", name), encoding="utf-8") as f:
            for address in re.findall(r"https?://[a-z0-9.-]+\.[a-z]+", f.read()):
                assert address in homes | {"https://mozilla.org", "http://deb.debian.org"}, f"{name}: {address}"
