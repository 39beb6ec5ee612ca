# SPDX-License-Identifier: Apache-2.0
"""Runs one command and says what it cost: python3 -I -S spawn.py RESULT SECONDS OUT ERR ARGV...

A process of its own, for two reasons. The time between fork and exec is that of a small process,
and the kernel counts the peak of the process that forked into ru_maxrss of the child, which would
hide every small client behind the interpreter of the bench. Even so it cannot show less than this
script's own size, so VmHWM of the whole tree is read every 20 ms besides.

RESULT gets "name value" lines: status (exit, or -signal; "timeout"), wall, user, sys (seconds, of
the command and of all descendants it waited for), maxrss, hwm (KiB; hwm is the sum over the
processes), own (KiB, the least that maxrss can show), wchar (bytes given to write calls, by the
command and its descendants; -1 where the kernel does not count them).
"""

import os
import select
import signal
import sys
import time

PERIOD_MS = 20


def children_of(pid):
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as f:
                found += [int(word) for word in f.read().split()]
    except OSError:
        pass
    return found


def note_peaks(pid, peaks):
    """VmHWM of pid and of what is below it. It only grows, until an exec starts it anew."""
    try:
        with open(f"/proc/{pid}/status") as f:
            for line in f:
                if line.startswith("VmHWM:"):
                    peaks[pid] = int(line.split()[1])
                    break
    except OSError:
        return
    for child in children_of(pid):
        note_peaks(child, peaks)


def written(pid):
    """Of a child that has ended and was not yet waited for."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    try:
        with open(f"/proc/{pid}/io") as f:
            return next(line.split()[1] for line in f if line.startswith("wchar:"))
    except OSError:
        return "-1"


def main():
    result, seconds, out, err = sys.argv[1:5]
    argv = sys.argv[5:]
    give_up = time.monotonic() + float(seconds)
    write = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    actions = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
               (os.POSIX_SPAWN_OPEN, 1, out, write, 0o644),
               (os.POSIX_SPAWN_OPEN, 2, err, write, 0o644)]
    peaks = {}
    late = False
    start = time.monotonic()
    pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setpgroup=0)
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(pid, signal.SIGKILL))
    ended = select.poll()
    ended.register(os.pidfd_open(pid), select.POLLIN)
    wait = 2
    while not ended.poll(wait):
        note_peaks(pid, peaks)
        wait = PERIOD_MS
        if time.monotonic() > give_up and not late:
            late = True
            os.killpg(pid, signal.SIGKILL)
    wall = time.monotonic() - start
    wchar = written(pid)
    _, status, used = os.wait4(pid, 0)
    own = {}
    note_peaks(os.getpid(), own)
    with open(result, "w") as f:
        f.write(f"status {'timeout' if late else os.waitstatus_to_exitcode(status)}\n"
                f"wall {wall}\nuser {used.ru_utime}\nsys {used.ru_stime}\n"
                f"maxrss {used.ru_maxrss}\nhwm {sum(peaks.values())}\n"
                f"own {own.get(os.getpid(), 0)}\nwchar {wchar}\n")


main()
