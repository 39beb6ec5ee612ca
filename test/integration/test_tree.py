# SPDX-License-Identifier: Apache-2.0
"""The shape of the sources: include graph, who may log, sizes, licence lines, generated tables."""

import pathlib
import re
import subprocess

import pytest

from lib.proc import TOP

# Design, section 6: where each module stands. Modules that came later say their row in the header.
DESIGN_ROWS = {"fetcher": 5, "watch": 4, "pull": 3, "oci": 2, "layout": 2, "store": 2, "unpack": 2,
               "auth": 1, "http": 1, "plan": 1, "verify": 1, "ref": 1, "config": 1, "metrics": 1,
               "work": 1, "json": 0, "sys": 0, "buf": 0, "log": 0, "progress": 0}
ANYWHERE = {"banned", "caps", "version", "ca_bundle"}
MAY_LOG = {"fetcher", "watch", "list", "list_prune", "announce", "pull", "log", "commands"}
SOURCES = sorted(TOP.glob("*.c"))
HEADERS = sorted(TOP.glob("*.h"))
GENERATED = {"version.h", "ca_bundle.h"}


def head(path):
    """The first comment of a file that is not the licence line."""
    match = re.search(r"/\*.*?\*/", path.read_text(), re.S)
    return match[0] if match else ""


def parts_of(header):
    """Modules a header says its module may call: "calls a, b; peers: c, d's data types."."""
    lists = re.findall(r"(?:\bcalls|\bpeers?:)\s([^.;]*(?:\.[ch]\b[^.;]*)*)", header)
    return {w for part in lists for w in re.findall(r"[a-z_]+", part)}


def module_rows():
    rows = dict(DESIGN_ROWS)
    for header in HEADERS:
        match = re.search(r"\bRow (\d)", head(header))
        if match:
            rows[header.stem] = int(match[1])
    return rows


def home(name, rows):
    """The module a source without a header of its own belongs to: the one whose header it names,
    or whose name begins its own (http_parse.c -> http.h, store_check.c -> store.h)."""
    if name in rows:
        return name
    for stem in sorted(rows, key=len, reverse=True):
        if name.startswith(stem + "_"):
            return stem
    named = [h.stem for h in HEADERS if h.stem in rows
             and re.search(rf"\b{re.escape(name)}\.c\b", head(h))]
    if named:
        return named[0]
    named = re.findall(r"\b([a-z_]+)\.h\b", head(TOP / f"{name}.c"))
    named = [n for n in named if n in rows]
    assert named, f"{name}.c: neither it nor a header says which module it belongs to"
    return named[0]


def includes(path):
    return re.findall(r'^#include "([a-z_/]+)\.h"', path.read_text(), re.M)


def test_headers_say_their_row_as_the_design_does():
    rows = module_rows()
    for name, row in DESIGN_ROWS.items():
        assert rows[name] == row, f"{name}.h says row {rows[name]}, the design says {row}"
    silent = [h.name for h in HEADERS if h.stem not in rows and h.stem not in ANYWHERE
              and h.name not in GENERATED and not h.stem.endswith("_internal")]
    assert silent == [], "headers without a row"


@pytest.mark.parametrize("path", SOURCES + HEADERS, ids=lambda p: p.name)
def test_include_graph(path):
    """Design 6: a file calls only files in lower rows, or peers named in its header."""
    rows = module_rows()
    if path.stem in ANYWHERE:
        return
    own = home(path.stem.removesuffix("_internal"), rows)
    text = {h.stem: head(h) for h in HEADERS}
    peers = parts_of(text.get(own, "")) | parts_of(head(path)) | parts_of(text.get(path.stem, ""))
    bad = []
    for name in includes(path):
        name = pathlib.PurePath(name).name
        if name in ANYWHERE or name == path.stem:
            continue
        other = home(name.removesuffix("_internal"), rows)
        if other == own or rows[other] < rows[own] or other in peers or name in peers:
            continue
        if own in parts_of(text.get(other, "")):
            continue
        bad.append(f"{path.name} (row {rows[own]}) includes {name}.h (row {rows[other]})")
    assert bad == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_only_the_top_modules_log(path):
    """Failures travel by value; log_line and log_fatal belong to the files that own a run."""
    if path.stem in MAY_LOG or path.stem == "progress":
        return
    calls = re.findall(r"\b(log_line|log_fatal)\(", path.read_text())
    assert calls == []


@pytest.mark.parametrize("path", SOURCES + HEADERS + sorted(TOP.glob("crypto/*.[ch]")),
                         ids=lambda p: p.name)
def test_source_habits(path):
    text = path.read_text()
    lines = text.splitlines()
    assert lines[0] == "// SPDX-License-Identifier: Apache-2.0"
    assert len(lines) < 800, f"{len(lines)} lines"
    if path.name != "gcm_alt.h":  # Mbed TLS wants the typedef
        assert not re.search(r"\btypedef struct\b", text)
    assert not re.search(r"[ \t]+$", text, re.M), "blanks at the end of a line"
    start = None
    for number, line in enumerate(lines, 1):
        if line == "{":
            start = number
        elif line.startswith("}") and start:
            assert number - start <= 101, f"the function at line {start} has {number - start} lines"
            start = None


@pytest.mark.parametrize("path", sorted([*TOP.glob("test/**/*.py"), *TOP.glob("test/**/*.c"),
                                         *TOP.glob("test/*.sh"), *TOP.glob("deps/*.sh"),
                                         *TOP.glob("deps/*.py")]), ids=lambda p: p.name)
def test_licence_lines(path):
    first = path.read_text().splitlines()[:2]
    assert any("SPDX-License-Identifier: Apache-2.0" in line for line in first)


def between(text, name):
    """What stands between the markers <!-- NAME --> and <!-- /NAME -->."""
    match = re.search(rf"<!-- {name}[^>]*-->\n(.*?)<!-- /{name}[^>]*-->", text, re.S)
    return match[1].strip() if match else None


def test_readme_tables_are_those_of_the_program(fetcher):
    readme = TOP / "README.md"
    if not readme.exists():
        pytest.skip("README.md is not written yet")
    made = fetcher("help", "--markdown").ok().out
    names = re.findall(r"<!-- ([a-z]+)[^>]*-->", made)
    assert names, "help --markdown prints no markers"
    for name in set(names):
        assert between(readme.read_text(), name) == between(made, name), \
            f"the {name} table of README.md is not what `fetcher help --markdown` prints"


def test_notice_names_every_source():
    notice = TOP / "NOTICE"
    if not notice.exists():
        pytest.skip("NOTICE is not written yet")
    lines = [x.split() for x in (TOP / "deps" / "manifest").read_text().splitlines()
             if x and not x.startswith("#")]
    assert len(lines) >= 5
    for name, version, file, digest, spdx, url, _ in lines:
        assert re.fullmatch("[0-9a-f]{64}", digest), name
        assert url.startswith("https://"), name
        assert version in notice.read_text() and spdx in notice.read_text(), name


def test_tracked_files_only_where_they_belong():
    """Everything built lands in build/."""
    if not (TOP / ".git").exists():
        pytest.skip("no git here")
    out = subprocess.run(["git", "-c", "safe.directory=*", "-C", str(TOP), "ls-files", "-o", "-c",
                          "--exclude-standard"], capture_output=True, text=True)
    if out.returncode:
        pytest.skip("git does not answer: " + out.stderr.strip())
    built = [f for f in out.stdout.splitlines() if re.search(r"\.(o|a|so|pyc|gcda|gcno)$", f)]
    assert built == []
