# SPDX-License-Identifier: Apache-2.0
"""Tests against tools that do not come from Debian; run by `make interop` alone. One file per part. The servers, `fetcher`,
`push` and the rest are those of test/integration. A part whose tool is missing is skipped with the reason."""
import importlib.util
import os
import pathlib
import shutil
import sys

import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]
TOOLS = TOP / "build" / "interop"
INTEGRATION = TOP / "test" / "integration"

# Both folders have a conftest. The other one is loaded under a name of its own, and what it offers becomes ours: as a
# plugin its fixtures would hold below its own folder only.
sys.path[:0] = [str(INTEGRATION), str(pathlib.Path(__file__).parent)]
_spec = importlib.util.spec_from_file_location("integration_fixtures", INTEGRATION / "conftest.py")
_module = importlib.util.module_from_spec(_spec)
sys.modules["integration_fixtures"] = _module
_spec.loader.exec_module(_module)
globals().update({name: value for name, value in vars(_module).items() if not name.startswith("_")})


def find_tool(name):
    """Path of a tool of test/interop.sh, or of one that is installed; skips where there is none."""
    found = shutil.which(name, path=f"{TOOLS / 'bin'}:{os.environ.get('PATH', os.defpath)}")
    if not found:
        why = TOOLS / f"{name}.why"
        pytest.skip(f"no {name}: {why.read_text().strip() if why.exists() else 'it is not on PATH'}")
    return found


def pytest_unconfigure(config):
    """The last line, as `make test` has it."""
    _module.pytest_unconfigure(config)
    stats = config.pluginmanager.get_plugin("terminalreporter").stats
    count = {kind: len(stats.get(kind, ())) for kind in ("passed", "failed", "error", "skipped")}
    for report in stats.get("skipped", ()):
        print(f"skipped: {report.nodeid}: {report.longrepr[2].removeprefix('Skipped: ')}")
    failed = count["failed"] + count["error"]
    if not failed and getattr(config, "fetcher_status", 1) not in (0, 5):
        failed = 1    # pytest itself broke down
    line = f"{count['passed']} passed, {failed} failed"
    print(line + (f", {count['skipped']} skipped" if count["skipped"] else ""), flush=True)
