# SPDX-License-Identifier: Apache-2.0
"""Between the swap of the link and the marker: whoever asks then, and a crash right there, must not turn a
volume that holds a complete version into one that is not ready."""

import os
import shutil
import threading

from lib.look import marker
from lib.sidecar import ANY, Sidecar, Versions

FAR = ("--period", "1h")


def test_ready_all_the_while(registry, fetcher, dest):
    """Neither /readyz nor probe ever says no while versions are swapped. [K19] [K20]"""
    v = Versions(registry, "window/ready")
    made = [v.make({"a": b"%d" % n}) for n in range(4)]
    v.move(made[0])
    answers, probes, done = [], [], threading.Event()
    with Sidecar(fetcher, v.ref, dest, *FAR, http=True) as s:
        s.listens().published(made[0])
        s.until(lambda: s.get("/readyz")[0] == 200)

        def ask(ask_one, into):
            while not done.is_set():
                into.append(ask_one())
        asking = [threading.Thread(target=ask, args=(lambda: s.get("/readyz")[::2], answers)),
                  threading.Thread(target=ask, args=(lambda: fetcher("probe", dest).rc, probes))]
        for thread in asking:
            thread.start()
        try:
            for n in range(1, 50):
                v.move(made[n % 4])
                s.hup()
                s.published(made[n % 4])
        finally:
            done.set()
            for thread in asking:
                thread.join()
        assert [x for x in answers if x[0] != 200][:3] == [] and set(probes) == {0}
        s.terminate(ANY)


def test_crash_between_link_and_marker(faults, fetcher, dest, tmp_path):
    """The link names the new version, the marker the old one, and the registry is away: what the link names
    is complete, it is served; the marker follows when the registry is back. [K4] [K20]"""
    faults.artifact({"a": b"1"})
    fetcher.pull(faults.ref(), dest, "--layout", "versions").ok()
    shutil.copy2(dest / ".fetcher/ready.json", tmp_path / "ready.json")
    two = faults.artifact({"a": b"2"})
    fetcher.pull(faults.ref(), dest, "--layout", "versions").ok()
    shutil.copy2(tmp_path / "ready.json", dest / ".fetcher/ready.json")
    fetcher("probe", dest).ok()
    rule = faults.rule("manifest", status=503)
    with Sidecar(fetcher, faults.ref(), dest, *FAR, "--retry-timeout", "100ms", http=True) as s:
        s.listens().says("gave up", level="warn")
        assert s.get("/readyz")[0] == 200
        faults.rules.remove(rule)
        s.hup()
        assert s.published(two.digest)["generation"] == 2
        s.terminate(ANY)


def test_link_that_somebody_set_back(faults, fetcher, dest):
    """By hand, to a version that was replaced: that is damage, and the next look mends it. [K5]"""
    one = faults.artifact({"a": b"1"})
    fetcher.pull(faults.ref(), dest, "--layout", "versions").ok()
    two = faults.artifact({"a": b"2"})
    fetcher.pull(faults.ref(), dest, "--layout", "versions").ok()
    os.unlink(dest / "current")
    os.symlink(".fetcher/versions/" + one.digest.replace(":", "-"), dest / "current")
    fetcher("probe", dest).exits(21)
    fetcher.pull(faults.ref(), dest, "--layout", "versions").ok()
    assert marker(dest)["digest"] == two.digest and os.readlink(dest / "current").endswith(two.digest[7:])
