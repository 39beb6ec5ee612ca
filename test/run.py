#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the tests and adds them up.

usage: run.py unit PROGRAM ...          cmocka programs
       run.py fuzz REPLAYER ...         each over test/fuzz/corpus/NAME, one test per fuzzer
       run.py integration [ARG ...]     pytest over test/integration
       run.py all --unit ... --fuzz ... all three

The last line printed is "N passed, N failed", with ", N skipped" where a test was skipped; the reasons stand above it.
Exit 0 only if nothing failed and something passed.
"""
import concurrent.futures
import os
import re
import subprocess
import sys
import xml.etree.ElementTree

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
UNIT_SECONDS = 600
SECOND_TRIES = 12    # more failures than that are no accident


class Tally:
    def __init__(self):
        self.passed = self.failed = 0
        self.skipped = []

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def __str__(self):
        text = f"{self.passed} passed, {self.failed} failed"
        return text + (f", {len(self.skipped)} skipped" if self.skipped else "")


def name_of(program):
    return os.path.basename(program)


def run(argv, env=None):
    """Exit status (None: too slow) and what was printed on both streams."""
    merged = dict(os.environ, **(env or {}))
    merged.setdefault("ASAN_OPTIONS", "detect_stack_use_after_return=1:strict_string_checks=1")
    merged.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
    try:
        done = subprocess.run(argv, cwd=TOP, env=merged, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=UNIT_SECONDS, check=False)
        return done.returncode, done.stdout.decode("utf-8", "replace")
    except subprocess.TimeoutExpired as late:
        return None, (late.stdout or b"").decode("utf-8", "replace")
    except OSError as e:
        return None, f"{argv[0]}: {e}\n"


def unit(program):
    """One cmocka program, by the TAP lines it prints; a test that was planned and did not report has failed."""
    tally = Tally()
    status, out = run([program], {"CMOCKA_MESSAGE_OUTPUT": "TAP"})
    planned = sum(int(n) for n in re.findall(r"^1\.\.(\d+)", out, re.M))
    for verdict, name in re.findall(r"^(ok|not ok) \d+ ?-? ?(.*)$", out, re.M):
        if "# SKIP" in name:
            tally.skipped.append(f"{name_of(program)}: {name}")
        elif verdict == "ok":
            tally.passed += 1
        else:
            tally.failed += 1
    tally.failed += max(0, planned - tally.passed - tally.failed - len(tally.skipped))
    if tally.failed == 0 and (status != 0 or tally.passed + len(tally.skipped) == 0):
        tally.failed = 1    # ended by a sanitizer at exit, by a signal, or without a single test
    report(name_of(program), tally, status, out)
    return tally


def fuzz(program):
    tally = Tally()
    corpus = os.path.join("test", "fuzz", "corpus", re.sub("^fuzz_", "", name_of(program)))
    status, out = run([program, corpus])
    if status == 0:
        tally.passed = 1
    else:
        tally.failed = 1
    report(name_of(program), tally, status, out)
    return tally


def report(name, tally, status, out):
    print(f"{'FAIL' if tally.failed else 'ok  '} {name}: {tally}", flush=True)
    if tally.failed:
        how = "took too long or did not start" if status is None else f"exit status {status}"
        print("".join(f"    {line}\n" for line in out.splitlines()[-80:]) + f"    ({how})", flush=True)


def each(function, programs):
    total = Tally()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for tally in pool.map(function, programs):
            total.add(tally)
    return total


def pytest_run(name, args):
    """Exit status of pytest, and its test cases: {name: verdict}, where a verdict is "passed", "failed" or the reason of a skip."""
    folder = os.path.join(TOP, "build", "test")
    xml_path = os.path.join(folder, name)
    os.makedirs(folder, exist_ok=True)
    if os.path.exists(xml_path):
        os.remove(xml_path)
    env = dict(os.environ, PYTHONDONTWRITEBYTECODE="1")
    env.setdefault("FETCHER_BIN", os.path.join(TOP, "build", "fetcher"))
    status = subprocess.run([sys.executable, "-m", "pytest", "-q", "-o", f"cache_dir={folder}/cache",
                             "--junitxml", xml_path, "test/integration", *args],
                            cwd=TOP, env=env, check=False).returncode
    try:
        cases = list(xml.etree.ElementTree.parse(xml_path).getroot().iter("testcase"))
    except (OSError, xml.etree.ElementTree.ParseError):
        cases = []
    verdicts = {}
    for case in cases:
        skip = case.find("skipped")
        verdict = "passed" if skip is None else f"skipped: {skip.get('message')}"
        if case.find("failure") is not None or case.find("error") is not None:
            verdict = "failed"
        verdicts[f"{case.get('classname')}.{case.get('name')}"] = verdict
    return status, verdicts


def integration(args):
    """A few that failed are run once more, alone: on a busy machine a server may start too late for them. It is said which."""
    total = Tally()
    status, verdicts = pytest_run("pytest.xml", args)
    failed = [name for name, verdict in verdicts.items() if verdict == "failed"]
    if 0 < len(failed) <= SECOND_TRIES:
        print(f"{len(failed)} failed; they get a second try")
        verdicts.update(pytest_run("second.xml", [*args, "--last-failed", "--last-failed-no-failures", "none"])[1])
        for name in failed:
            print(f"second try: {name}: {verdicts[name]}")
    for name, verdict in verdicts.items():
        if verdict == "failed":
            total.failed += 1
        elif verdict == "passed":
            total.passed += 1
        else:
            total.skipped.append(f"{name}: {verdict.removeprefix('skipped: ')}")
    if status != 0 and total.failed == 0 and not failed:
        total.failed = 1    # pytest itself broke down, or found nothing to run
    return total


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    kind, args = sys.argv[1], sys.argv[2:]
    total = Tally()
    if kind == "unit":
        total.add(each(unit, args))
    elif kind == "fuzz":
        total.add(each(fuzz, args))
    elif kind == "integration":
        total.add(integration(args))
    elif kind == "all" and args[:1] == ["--unit"] and "--fuzz" in args:
        cut = args.index("--fuzz")
        total.add(each(unit, args[1:cut]))
        total.add(each(fuzz, args[cut + 1:]))
        total.add(integration([]))
    else:
        sys.exit(__doc__)
    for reason in total.skipped:
        print(f"skipped: {reason}")
    print(total)
    sys.exit(0 if total.failed == 0 and total.passed > 0 else 1)


if __name__ == "__main__":
    main()
