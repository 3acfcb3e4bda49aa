"""`labs tour`: a starter fails, its solution passes, and the two are compared."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from runner.checkout import find_root, shown_path
from runner.errors import MachineError
from runner.lab import Lab, find_lab
from runner.page import compare as compare_pages
from runner.report import new_run_folder
from runner.verdict import CheckResult, Outcome
from runner.watch import worst_values


def take(name: str, backend: str) -> int:
    """Run both with the same seed and print what differs; 0 when the starter failed and the solution passed."""
    lab = find_lab(name)
    size = f"{lab.app.replicas} replica{'s' * (lab.app.replicas > 1)}"
    print(f"A tour of {lab.name}: {lab.title}, with {', '.join(lab.services) or 'no server'} and {size} of the app on this machine.\n")
    print("1. The starter: it works in a demo.", flush=True)
    folders = [new_run_folder(lab.name) for _ in range(2)]
    starter = run_once(lab, "starter", backend, folders[0])
    print("\n2. The solution: the same load, the same faults.", flush=True)
    solution = run_once(lab, "solution", backend, folders[1])
    print("\n3. Side by side\n")
    for line in compare(starter, solution):
        print(line)
    page = find_root() / ".labs" / "tour.html"
    compare_pages(folders[0], folders[1], {lab.name: lab.title}, page)
    print(f"\nthe same with charts: {shown_path(page)}, in a browser")
    first = first_failed(starter)
    if first:
        print(f"\nwhy the starter failed: {first['why']}")
    if starter["verdict"] == Outcome.FAIL.name and solution["verdict"] == Outcome.PASS.name:
        print(f"\nnext: `make lab NAME={lab.name}` gives you the starter as {shown_path(find_root() / 'my' / lab.name)}/, yours to mend")
        return int(Outcome.PASS)
    print(f"\nThe starter should have come to FAIL and the solution to PASS, not to {starter['verdict']} and {solution['verdict']}.")
    print("next: close what is busy on this machine, and run again")
    return int(Outcome.ERROR)


def run_once(lab: Lab, submission: str, backend: str, folder: Path) -> dict[str, Any]:
    """Run one submission in a process of its own and return its report. Raises MachineError when there is none."""
    argv = [
        sys.executable,
        "-m",
        "runner",
        "run",
        lab.name,
        f"--submission={submission}",
        f"--backend={backend}",
        "--seed=1",
        f"--run-folder={folder}",
        "--brief",
    ]
    with subprocess.Popen(argv) as process:
        try:
            process.wait()
        except KeyboardInterrupt:
            process.wait()  # it got the same Ctrl-C from the terminal, and ends what it started; subprocess.run would kill it at that
            raise
    report = folder / "report.json"
    if not report.exists():
        raise MachineError(f"the {submission} came to no verdict", hint=f"`labs run {lab.name} --submission {submission}` shows more")
    data: dict[str, Any] = json.loads(report.read_text())
    return data


def compare(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The checks of two reports as a table: verdicts and compared values."""
    rows = [("", one["submission"], other["submission"])]
    others = {c["name"]: c for c in other["checks"]}
    for check in one["checks"]:
        match = others.get(check["name"], {"outcome": "-", "comparisons": []})
        rows.append((CheckResult(check["name"], Outcome.PASS).title, check["outcome"], match["outcome"]))
        theirs = worst_values(match)
        for what, (value, limit) in worst_values(check).items():
            if what in theirs:
                rows.append((f"  {what} ({limit})", f"{value:.3g}", f"{theirs[what][0]:.3g}"))
    width = max(len(name) for name, _, _ in rows)
    return [f"{name:<{width}} {left:>12} {right:>12}" for name, left, right in rows]


def first_failed(report: dict[str, Any]) -> dict[str, Any] | None:
    """The first check that failed."""
    return next((c for c in report["checks"] if c["outcome"] == Outcome.FAIL.name), None)
