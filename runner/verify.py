"""`labs verify`: proves labs. One pytest process per cell (a submission of a lab, once); then the table of what held and how clearly."""

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from runner.checkout import find_root, shown_path
from runner.errors import LabError
from runner.form import check_form
from runner.lab import Lab, all_labs, find_lab
from runner.verdict import Outcome

CELL_WITHIN_S = 180


@dataclass(frozen=True)
class Plan:
    """What to prove, and under which strain."""

    names: Sequence[str] = ()
    only: Sequence[str] = ()
    repeat: int = 1
    is_busy: bool = False
    jobs: int = 1
    seed: int | None = None
    output: Path | None = None


@dataclass(frozen=True)
class Expectation:
    """What one submission must come to."""

    submission: str
    fails: frozenset[str]
    may_fail: frozenset[str]

    def judge(self, report: dict[str, Any]) -> str:
        """What is wrong with a report of this submission; "" when it is as declared."""
        failed = {c["name"] for c in report["checks"] if c["outcome"] == "FAIL" and not c["blame"]}
        blamed = [c for c in report["checks"] if c["blame"]]
        if blamed:
            return f"{report['verdict']}, not judged by a check: {blamed[0]['seen'].splitlines()[0]}"
        if not self.fails:
            return "" if report["verdict"] == "PASS" else describe(report)
        if report["verdict"] != "FAIL":
            return f"{report['verdict']}, should fail {names(self.fails)}"
        if missed := self.fails - failed:
            return f"not caught by {names(missed)}"
        if extra := failed - self.fails - self.may_fail:
            return f"failed {names(extra)}, which lab.toml does not say"
        return ""


@dataclass
class Cell:
    """One submission of one lab, once."""

    lab: Lab
    expectation: Expectation
    attempt: int
    problem: str = ""
    report: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    folder: Path | None = None

    @property
    def title(self) -> str:
        """`cache-stampede wrong/immortal-lock #2`."""
        return f"{self.lab.name} {self.expectation.submission}" + (f" #{self.attempt}" if self.attempt > 1 else "")


def verify(plan: Plan) -> int:
    """Prove what the plan names, print it, write verify.json and junit.xml; 0 only if everything holds."""
    labs = [find_lab(name) for name in plan.names] or all_labs(find_root())
    output = plan.output or find_root() / ".labs" / "verify" / time.strftime("%Y%m%d-%H%M%S")
    output.mkdir(parents=True, exist_ok=True)
    problems = {lab.name: check_form(lab) for lab in labs}
    for name, found in problems.items():
        for problem in found:
            print(f"FORM  {name}: {problem}")
    cells = [Cell(lab, e, attempt) for attempt in range(1, plan.repeat + 1) for lab in labs for e in expectations(lab, plan.only)]
    if not cells:
        raise LabError("there is nothing to verify", hint="see `labs list`, and the folders under wrong/ for --only")
    started = time.monotonic()
    with kept_busy(plan.is_busy):
        run_cells(cells, plan, output)
    wall_s = time.monotonic() - started
    print_table(cells)
    print_margins(cells)
    write_results(cells, problems, output, wall_s)
    bad = [c for c in cells if c.problem]
    form_problems = sum(map(len, problems.values()))
    load_s = sum(c.report.get("load_s", 0.0) for c in cells)
    print(f"\n{len(cells)} cells in {wall_s:.0f} s ({load_s:.0f} s of load); {shown_path(output)}/verify.json")
    print(f"{len(cells) - len(bad)} passed, {len(bad) + form_problems} failed")
    return int(Outcome.FAIL if bad or form_problems else Outcome.PASS)


def expectations(lab: Lab, only: Sequence[str]) -> list[Expectation]:
    """The starter, the solution and each wrong submission, as lab.toml declares them."""
    found = [Expectation("starter", frozenset(lab.starter.fails), frozenset(lab.starter.may_fail))]
    found.append(Expectation("solution", frozenset(), frozenset()))
    found += [Expectation(f"wrong/{bug}", frozenset(w.fails), frozenset(w.may_fail)) for bug, w in lab.wrong.items()]
    return [e for e in found if not only or e.submission in only]


def run_cells(cells: Sequence[Cell], plan: Plan, output: Path) -> None:
    """Run all cells: those of one lab one after the other, labs side by side up to `jobs`."""
    lanes: dict[str, list[Cell]] = {}
    for cell in cells:
        lanes.setdefault(cell.lab.name, []).append(cell)
    done, stopping = threading.Lock(), threading.Event()
    count = iter(range(1, len(cells) + 1))

    def run_lane(lane: Sequence[Cell]) -> None:
        for cell in lane:
            if stopping.is_set():
                return
            run_cell(cell, plan.seed, output)
            with done:
                mark = "BAD" if cell.problem else "ok "
                verdict = cell.report.get("verdict", "-")
                line = f"{next(count):4}/{len(cells)}  {mark}  {cell.title:<58} {verdict:<12} {cell.seconds:5.1f} s"
                print(f"{line}  {cell.problem}".rstrip(), flush=True)

    with ThreadPoolExecutor(max_workers=max(1, min(plan.jobs, len(lanes)))) as pool:
        try:
            list(pool.map(run_lane, lanes.values()))
        except KeyboardInterrupt:
            stopping.set()  # the cells under way got the same Ctrl-C from the terminal
            raise


def run_cell(cell: Cell, seed: int | None, output: Path) -> None:
    """Judge one submission in a pytest process of its own."""
    slug = cell.expectation.submission.replace("/", "-")
    cell.folder = output / f"{cell.lab.name}-{slug}-{cell.attempt}"
    argv = [
        sys.executable,
        "-m",
        "pytest",
        str(cell.lab.folder / "test_lab.py"),
        "-q",
        "-o",
        "addopts=",
        "-o",
        "filterwarnings=",
        "-p",
        "labs",
        "-p",
        "no:cacheprovider",
    ]
    argv += [f"--submission={cell.expectation.submission}", f"--run-folder={cell.folder}", f"--rootdir={find_root()}"]
    argv += ["-c", str(find_root() / "pyproject.toml")] + [f"--seed={seed}"] * (seed is not None)
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    started = time.monotonic()
    cell.folder.mkdir(parents=True)
    with (cell.folder / "pytest.log").open("w") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=env, cwd=find_root())
        try:
            code = process.wait(CELL_WITHIN_S)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            process.kill()  # its guard ends the rest
            process.wait()
    cell.seconds = time.monotonic() - started
    report = cell.folder / "report.json"
    if code is None:
        cell.problem = f"not done within {CELL_WITHIN_S} s, see {shown_path(cell.folder)}"
    elif not report.exists():
        cell.problem = f"no verdict (exit code {code}), see {shown_path(cell.folder)}/pytest.log"
    else:
        cell.report = json.loads(report.read_text())
        cell.problem = cell.expectation.judge(cell.report)


@contextmanager
def kept_busy(is_wanted: bool) -> Iterator[None]:
    """A busy loop on every core meanwhile."""
    spinners = [multiprocessing.get_context("spawn").Process(target=spin, daemon=True) for _ in range(os.cpu_count() or 1 if is_wanted else 0)]
    for spinner in spinners:
        spinner.start()
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.join()


def spin() -> None:
    """Use one core until killed, or until the parent is gone."""
    parent = os.getppid()
    while os.getppid() == parent:
        for _ in range(100_000):
            pass


def print_table(cells: Sequence[Cell]) -> None:
    """Labs x submissions: how many of the repeats were as declared, and the median of their seconds."""
    print("\nlab                       submission                            as declared   median s")
    for (lab, submission), group in grouped(cells).items():
        good = sum(not c.problem for c in group)
        seconds = statistics.median(c.seconds for c in group)
        mark = "" if good == len(group) else "   BAD"
        print(f"{lab:<25} {submission:<37} {good:>3} of {len(group):<6} {seconds:8.1f}{mark}")


def grouped(cells: Sequence[Cell]) -> dict[tuple[str, str], list[Cell]]:
    """The repeats of each cell."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.lab.name, cell.expectation.submission), []).append(cell)
    return groups


def margins(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """For each compared value, what the solution had and what those had that its check must catch and did."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for cell in cells:
        for check in cell.report.get("checks", []):
            for c in check["comparisons"]:
                row = found.setdefault(
                    (cell.lab.name, check["name"], c["what"]),
                    {"lab": cell.lab.name, "check": check["name"], **c, "passing": [], "caught": []},
                )
                if cell.expectation.submission == "solution":
                    row["passing"].append(c["value"])
                elif check["name"] in cell.expectation.fails and check["outcome"] == "FAIL":
                    row["caught"].append(c["value"])
    return list(found.values())


def print_margins(cells: Sequence[Cell]) -> None:
    """Each compared value beside its limit, the solution's worst and the nearest of what must be caught."""
    rows = margins(cells)
    if not rows:
        return
    print("\nlab                       compared value                        solution's worst      limit   nearest caught")
    for row in rows:
        worst, nearest = (max, min) if row["is_upper"] else (min, max)
        passing = f"{worst(row['passing']):.4g}" if row["passing"] else "-"
        caught = f"{nearest(row['caught']):.4g}" if row["caught"] else "-"
        print(f"{row['lab']:<25} {row['what'] or row['check']:<37} {passing:>16} {row['limit']:>10.4g} {caught:>16}")


def write_results(cells: Sequence[Cell], problems: dict[str, list[str]], output: Path, wall_s: float) -> None:
    """verify.json and junit.xml."""
    rows = [
        {
            "lab": c.lab.name,
            "submission": c.expectation.submission,
            "attempt": c.attempt,
            "problem": c.problem,
            "verdict": c.report.get("verdict"),
            "seed": c.report.get("seed"),
            "seconds": round(c.seconds, 2),
            "load_s": c.report.get("load_s"),
            "longest_stall_s": c.report.get("longest_stall_s"),
        }
        for c in cells
    ]
    summary = {"schema": 1, "wall_s": round(wall_s, 1), "form": problems, "cells": rows, "margins": margins(cells)}
    (output / "verify.json").write_text(json.dumps(summary, indent=1) + "\n")
    failures = str(sum(bool(c.problem) for c in cells))
    suite = ElementTree.Element("testsuite", name="labs verify", tests=str(len(cells)), failures=failures)
    for c in cells:
        case = ElementTree.SubElement(suite, "testcase", classname=c.lab.name, name=c.title, time=f"{c.seconds:.2f}")
        if c.problem:
            ElementTree.SubElement(case, "failure", message=c.problem)
    ElementTree.ElementTree(suite).write(output / "junit.xml", encoding="utf-8", xml_declaration=True)


def describe(report: dict[str, Any]) -> str:
    """A verdict that should have been PASS, with its first reason."""
    first = next((c for c in report["checks"] if c["outcome"] != "PASS"), None)
    return f"{report['verdict']}: {first['name']}: {first['seen'].splitlines()[0]}" if first else report["verdict"]


def names(checks: Set[str]) -> str:
    """Check names in a line."""
    return ", ".join(sorted(checks))
