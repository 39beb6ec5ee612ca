# SPDX-License-Identifier: Apache-2.0
"""Turns measured runs into markdown: one table a scenario, the targets below it."""

import os
import pathlib
import re
import statistics
import subprocess

from servers import GIB, MIB, SUITE, part

median = statistics.median


class Result:
    """All runs of one client in one scenario, in the order of the rounds."""

    def __init__(self, name):
        self.name = name
        self.runs = []
        self.syscalls = None
        self.failure = None

    def of(self, what):
        return [getattr(run, what) for run in self.runs]

    def seen(self, what):
        return [getattr(run.seen, what) for run in self.runs]

    def as_dict(self):
        return {"failure": self.failure, "syscalls": self.syscalls,
                "runs": [run.as_dict() for run in self.runs]}


class Verdict:
    """A target and what became of it. met None: not measured."""

    def __init__(self, text, value=None, met=None):
        self.text = text
        self.value = value
        self.met = met

    def __str__(self):
        if self.met is None:
            return f"- {self.text}: not measured"
        return f"- {self.text}: {self.value}, **{'met' if self.met else 'missed'}**"


def spread(values, form="{:.2f}"):
    if len(values) == 1:
        return form.format(values[0])
    low, high = form.format(min(values)), form.format(max(values))
    return f"{form.format(median(values))} ({low}..{high})"


def ratio(mine, other):
    """Ratio of the medians; the range is that of the rounds, each with its own neighbour."""
    each = [a / b for a, b in zip(mine, other)]
    whole = f"{median(mine) / median(other):.2f}x"
    return whole + (f" ({min(each):.2f}..{max(each):.2f})" if len(each) > 1 else "")


def good(results, name):
    """The result if it has runs and no failure."""
    result = results.get(name)
    return result if result and result.runs and not result.failure else None


def at_most(results, what, limit, label, base="oras", name="fetcher"):
    text = f"{label} <= {limit:.2f}x {base}"
    mine, other = good(results, name), good(results, base)
    if not mine or not other:
        return Verdict(text)
    return Verdict(text, ratio(mine.of(what), other.of(what)),
                   median(mine.of(what)) <= limit * median(other.of(what)))


def count(n):
    return f"{n:,.0f}"


def unit_of(size):
    """Costs are per GiB, for small artifacts per pull."""
    return (size / GIB, "GiB") if size >= GIB / 2 else (1, "pull")


def row(result, size, oras):
    if result.failure:
        return [result.name, f"failed: {result.failure}"]
    units, _ = unit_of(size)
    against = oras and result is not oras
    return [result.name, spread(result.of("wall")),
            ratio(result.of("wall"), oras.of("wall")) if against else "",
            spread([cpu / units for cpu in result.of("cpu")]),
            f"{median(result.of('cpu')) / median(oras.of('cpu')):.2f}x" if against else "",
            f"{max(result.of('rss')) / MIB:.1f}",
            f"{median(result.seen('bytes')) / size:.3f}x",
            f"{median(result.seen('blob_gets')):.0f}",
            f"{median(result.seen('connections')):.0f}",
            "" if result.syscalls is None else count(result.syscalls / units),
            f"{median(result.of('server')) / units:.2f}"]


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for cells in rows:
        cells = [*cells, *[""] * (len(head) - len(cells))]
        lines.append("| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |")
    return lines


def floor_walls(receive, hashing, cores):
    """Per round: all work spread over the cores, but a blob's hash is one core's work."""
    return [max((r.cpu + r.server + h.cpu) / cores, h.wall)
            for r, h in zip(receive.runs, hashing.runs)]


def pull_table(results, size, cores):
    """The table of scenarios A to E."""
    oras = good(results, "oras")
    units, unit = unit_of(size)
    head = ["tool", "wall s", "x oras", f"CPU-s/{unit}", "x oras", "peak RSS MiB", "wire",
            "blob GETs", "connections", f"syscalls/{unit}", f"server CPU-s/{unit}"]
    rows = [row(result, size, oras) for name, result in results.items()
            if not name.startswith("floor")]
    receive, hashing = good(results, "floor receive"), good(results, "floor hash")
    if receive and hashing:
        rows.append(row(receive, size, oras))
        rows[-1][0] = "floor: receive + write (curl)"
        rows.append(["floor: hash (openssl dgst)", spread(hashing.of("wall")), "",
                     spread([cpu / units for cpu in hashing.of("cpu")])])
        walls = floor_walls(receive, hashing, cores)
        both = [r.cpu + h.cpu for r, h in zip(receive.runs, hashing.runs)]
        rows.append([f"floor: both over {cores} cores", spread(walls),
                     ratio(walls, oras.of("wall")) if oras else "",
                     spread([cpu / units for cpu in both]),
                     f"{median(both) / median(oras.of('cpu')):.2f}x" if oras else ""])
    return table(head, rows)


def noise(results):
    shares = [run.foreign for result in results.values() for run in result.runs
              if run.wall > 0.3]  # shorter ones are within the clock tick
    if not shares:
        return []
    return [f"Others used {median(shares):.0%} of the machine (median of the runs; at most "
            f"{max(shares):.0%})."]


def second_pull_table(results):
    """Scenario F."""
    rows = []
    for result in results.values():
        if result.failure:
            rows.append([result.name, f"failed: {result.failure}"])
            continue
        rows.append([result.name, spread([w * 1000 for w in result.of("wall")], "{:.0f}"),
                     f"{median(result.of('cpu')) * 1000:.0f}",
                     f"{median(result.seen('requests')):.0f}",
                     f"{max(result.seen('blob_gets'))}", count(max(result.seen("bytes")))])
    return table(["tool", "wall ms", "CPU ms", "requests", "blob GETs", "body bytes"], rows)


def memory_table(by_size):
    """Scenario G: by_size is {GiB: results}."""
    rows = []
    for gib, results in by_size.items():
        for result in results.values():
            if result.failure:
                rows.append([result.name, f"{gib} GiB", f"failed: {result.failure}"])
                continue
            rows.append([result.name, f"{gib} GiB",
                         spread([rss / MIB for rss in result.of("rss")], "{:.1f}"),
                         f"{median(result.seen('connections')):.0f}",
                         spread(result.of("wall"))])
    return table(["tool", "blob", "peak RSS MiB", "connections", "wall s"], rows)


def first_line(argv, pattern=r"\S.*"):
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return "missing"
    match = re.search(pattern, done.stdout + done.stderr)
    return match[0].strip() if match else "unknown"


def machine():
    """One line on the machine, one on the programs."""
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    flags = pathlib.Path("/proc/cpuinfo").read_text()
    extra = [name for name in ("sha_ni", "aes", "vaes", "avx512f", "sha2", "pmull")
             if re.search(rf"\b{name}\b", flags)]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    uname = os.uname()
    return (f"{cpu[1] if cpu else uname.machine} ({' '.join(extra)}), {os.cpu_count()} cores, "
            f"{memory:.0f} GiB, Linux {uname.release}")


def programs(fetcher):
    number = r"\d+\.\d+[\w.+~-]*"
    found = {
        "fetcher": first_line([*fetcher, "version"]) if fetcher else "missing",
        "oras": first_line([part("oras"), "version"], number),
        "skopeo": first_line([part("skopeo"), "--version"], number),
        "umoci": first_line([part("umoci"), "--version"], number),
        "zstd": first_line([part("zstd"), "--version"], number),
        "aria2": first_line([part("aria2c"), "--version"], number),
        "curl": first_line(["curl", "--version"], number),
        "openssl": first_line([part("openssl"), "version"], number),
        "docker-registry": first_line([part("docker-registry"), "--version"], number),
        "nginx": first_line([part("nginx"), "-v"], number),
        "HAProxy": first_line([part("haproxy"), "-v"], number),
    }
    return ", ".join(re.sub(r"^fetcher fetcher", "fetcher", f"{name} {version}")
                     for name, version in found.items())


NOTES = f"""\
- Server, clients and content are on one machine: loopback, and tmpfs on both sides. Clients
  alternate inside a round and the order turns by one each round. A wall time is the median
  (least..most); a ratio is that of the medians (least..most of the single rounds).
- CPU is user + system time of the client and its children. Peak RSS is the largest process of a
  client, the sum for a pipeline; the largest of all rounds. Wire is the bytes of answers by the
  server's log, divided by the artifact. System calls are those of one further run under strace.
- TLS is 1.3 with {SUITE}, which the server allows alone. Before HAProxy the connections
  are those between it and the registry.
- The floor is what curl needs to receive and write, plus what openssl needs to hash, plus what the
  server needs, spread over the cores, but not less than the hash of one blob on one core. openssl
  reads the files once more for it: a client that hashes what it holds in memory can stay
  below."""
