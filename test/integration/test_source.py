# SPDX-License-Identifier: Apache-2.0
"""Rules about the sources that a machine can check: who may include whom, licence lines, sizes."""
import glob
import os
import re

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LINES_MAX = 800
FUNCTION_MAX = 100
# Headers without a module: caps, the forced page, what the build writes.
BASE = {"caps.h", "banned.h", "version.h", "ca_bundle.h"}
# Rows of files that have no header.
PROGRAM = {"fetcher": 5}


def sources(*patterns):
    return sorted(os.path.relpath(p, TOP) for pat in patterns for p in glob.glob(os.path.join(TOP, pat)))


def text_of(name):
    with open(os.path.join(TOP, name), encoding="utf-8") as f:
        return f.read()


def opening(name):
    """The first comment of a header, as one line."""
    found = re.search(r"/\*(.*?)\*/", text_of(name), re.S)
    return re.sub(r"\s*\n \*\s*|\s+", " ", found.group(1)) if found else ""


def includes(name):
    return re.findall(r'^#include "([^"]+)"', text_of(name), re.M)


def module_of(name):
    """x.c and x_internal.h belong to x; a .c without a header of its name belongs to the first one that it includes."""
    stem = re.sub(r"_internal$", "", os.path.splitext(name)[0])
    if os.path.exists(os.path.join(TOP, stem + ".h")) or stem in PROGRAM or not name.endswith(".c"):
        return stem
    return module_of(includes(name)[0])


def rows():
    found = dict(PROGRAM)
    for name in sources("*.h"):
        if name in BASE or name.endswith("_internal.h"):
            continue
        row = re.search(r"\bRow (\d)", opening(name))
        assert row, f"{name}: its first comment names no row"
        found.setdefault(name[:-2], int(row.group(1)))
    return found


def named(module):
    """The files that a header says its module may call: "calls a, b; peers: c, d."."""
    header = module + ".h"
    if not os.path.exists(os.path.join(TOP, header)):
        return set()
    lists = re.findall(r"(?:\bcalls|\bpeers?:)\s([^.;()]*(?:\.h[^.;()]*)*)", opening(header))
    return {re.sub(r"\.h.*$", "", word) for part in lists for word in re.split(r"[\s,]+", part) if word}


def test_include_graph():
    row = rows()
    wrong = []
    for name in sources("*.c", "*.h"):
        if name in BASE:
            continue
        module = module_of(name)
        for header in includes(name):
            if header in BASE or not header.endswith(".h"):
                continue
            other = module_of(header)
            if other == module or row[other] < row[module] or other in named(module):
                continue
            wrong.append(f"{name} (row {row[module]}) includes {header} (row {row[other]}), not a peer that {module}.h names")
    assert not wrong, "\n".join(wrong)


def test_only_the_top_prints():
    """Errors travel up by value; only fetcher.c, commands.c, watch.c, pull.c and the log itself write to the user."""
    for name in sources("*.c"):
        if module_of(name) in {"fetcher", "commands", "watch", "pull", "log", "progress"}:
            continue
        found = re.search(r"\b(printf|puts|fprintf\s*\(\s*std(err|out)|log_(info|warn|error|debug|line))\s*\(", text_of(name))
        assert not found, f"{name}: {found.group()}"


def test_licence_line():
    names = sources("*.[ch]", "crypto/*.[ch]", "test/unit/*.[ch]", "test/fuzz/*.[ch]", "test/integration/*.py",
                    "test/integration/lib/*.py", "test/*.py", "test/*.sh", "deps/*.sh", "deps/*.py", "deps/*.h", "Makefile",
                    "Dockerfile.scratch")
    for name in names:
        head = text_of(name).split("\n", 2)[:2]
        line = head[1] if head[0].startswith("#!") else head[0]
        assert re.fullmatch(r"(//|#) SPDX-License-Identifier: Apache-2\.0", line), f"{name}: {line!r}"


def test_sizes():
    for name in sources("*.[ch]", "crypto/*.[ch]"):
        lines = text_of(name).splitlines()
        assert len(lines) < LINES_MAX, f"{name}: {len(lines)} lines"
        start = None
        for number, line in enumerate(lines, 1):
            if line == "{":
                start = number
            elif line == "}" and start is not None:
                assert number - start <= FUNCTION_MAX, f"{name}:{start}: a function of {number - start} lines"
                start = None
