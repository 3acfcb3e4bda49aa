"""What a verification came to: the tables on the terminal, verify.json and junit.xml."""

import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from runner.cell import Cell
from runner.verdict import Comparison


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
    """For each compared value, what the solution had and what those had that its check must catch and did, each with its limit."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for cell in cells:
        for check in cell.report.get("checks", []):
            for c in check["comparisons"]:
                names = {"lab": cell.lab.name, "check": check["name"], "what": c["what"], "is_upper": c["is_upper"]}
                row = found.setdefault((cell.lab.name, check["name"], c["what"]), {**names, "passing": [], "caught": []})
                seen = {"value": c["value"], "limit": c["limit"]}  # a limit may be drawn from the run
                if cell.expectation.submission == "solution":
                    row["passing"].append(seen)
                elif check["name"] in cell.expectation.fails and not comparison_of(row, seen).holds:
                    row["caught"].append(seen)
    return list(found.values())


def comparison_of(row: dict[str, Any], seen: dict[str, float]) -> Comparison:
    """One of a row's values, beside its limit."""
    return Comparison(row["what"], seen["value"], seen["limit"], row["is_upper"])


def print_margins(cells: Sequence[Cell]) -> None:
    """Each compared value beside its limit, the solution's worst and the nearest of what must be caught."""
    rows = margins(cells)
    if not rows:
        return
    print("\nlab                       compared value                        solution's worst      limit   nearest caught")
    for row in rows:
        worst = min((comparison_of(row, seen) for seen in row["passing"]), key=by_margin, default=None)
        nearest = max((comparison_of(row, seen) for seen in row["caught"]), key=by_margin, default=None)
        shown = worst or nearest
        passing = f"{worst.value:.4g}" if worst else "-"
        limit = f"{shown.limit:.4g}" if shown else "-"
        caught = f"{nearest.value:.4g}" if nearest else "-"
        if worst and nearest and nearest.limit != worst.limit:
            caught += f" of {nearest.limit:.4g}"
        print(f"{row['lab']:<25} {row['what'] or row['check']:<37} {passing:>16} {limit:>10} {caught:>16}")


def by_margin(comparison: Comparison) -> tuple[float, float]:
    """What orders values from the wrong side of their limits to the right one; beside a limit of 0 the values themselves do."""
    return comparison.margin, -comparison.value if comparison.is_upper else comparison.value


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
            "cpu_wait_share": c.report.get("cpu_wait_share"),
        }
        for c in cells
    ]
    summary = {"schema": 2, "wall_s": round(wall_s, 1), "form": problems, "cells": rows, "margins": margins(cells)}
    (output / "verify.json").write_text(json.dumps(summary, indent=1) + "\n")
    failures = str(sum(bool(c.problem) for c in cells))
    suite = ElementTree.Element("testsuite", name="labs verify", tests=str(len(cells)), failures=failures)
    for c in cells:
        case = ElementTree.SubElement(suite, "testcase", classname=c.lab.name, name=c.title, time=f"{c.seconds:.2f}")
        if c.problem:
            ElementTree.SubElement(case, "failure", message=c.problem)
    ElementTree.ElementTree(suite).write(output / "junit.xml", encoding="utf-8", xml_declaration=True)


def publish_summary(cells: Sequence[Cell], problems: dict[str, list[str]], output: Path) -> None:
    """summary.md, which is appended to GitHub's step summary as well when there is one."""
    text = summarise(cells, problems)
    (output / "summary.md").write_text(text)
    if page := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(page).open("a") as file:
            file.write(text)


def summarise(cells: Sequence[Cell], problems: dict[str, list[str]]) -> str:
    """The table in Markdown: what is bad first."""
    form = [f"- **{name}**: {problem}" for name, found in problems.items() for problem in found]
    groups = grouped(cells)
    bad = sum(bool(cell.problem) for cell in cells)
    lines = [f"### labs verify: {len(cells) - bad} passed, {bad + len(form)} failed", "", *form, *([""] if form else [])]
    lines += ["| lab | submission | as declared | s | |", "|---|---|---|---:|---|"]
    for (lab, submission), group in sorted(groups.items(), key=lambda item: not any(cell.problem for cell in item[1])):
        failed = [cell.problem for cell in group if cell.problem]
        seconds = statistics.median(cell.seconds for cell in group)
        note = failed[0].replace("|", "\\|").replace("\n", " ") if failed else ""
        lines.append(f"| {lab} | {submission} | {'no' if failed else 'yes'}: {len(group) - len(failed)} of {len(group)} | {seconds:.1f} | {note} |")
    return "\n".join(lines) + "\n"
