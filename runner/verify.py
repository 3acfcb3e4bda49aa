"""`labs verify`: proves labs. One pytest process per cell (a submission of a lab, once); then the table of what held and how clearly."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from runner.backend import choose_backend
from runner.cell import Cell, writable
from runner.checkout import find_root, shown_path
from runner.errors import LabError, LabsError, MachineError
from runner.form import check_form
from runner.plan import Plan, choose_cells, choose_labs
from runner.tally import print_margins, print_table, publish_summary, write_results
from runner.verdict import Outcome

CELL_WITHIN_S = 180


def verify(plan: Plan) -> int:
    """Prove what the plan names, print it, write verify.json and junit.xml; 0 only if everything holds."""
    labs = choose_labs(plan)
    cells = choose_cells(labs, plan)
    output = make_output(plan.output)
    problems = {} if plan.is_mine else {lab.name: check_form(lab) for lab in labs}
    for name, found in problems.items():
        for problem in found:
            print(f"FORM  {name}: {problem}")
    services = {service for lab in labs for service in lab.services}
    backend = choose_backend(plan.backend, sorted(services), sorted({program for lab in labs for program in lab.programs}))
    backend.close()
    print(f"backend: {backend}", flush=True)
    plan = replace(plan, backend=backend.name)
    fetch_ahead(cells, plan)
    started = time.monotonic()
    with kept_busy(plan.is_busy):
        run_cells(cells, plan, output)
    wall_s = time.monotonic() - started
    print_table(cells)
    if not plan.is_mine:
        print_margins(cells)
    write_results(cells, problems, output, wall_s)
    publish_summary(cells, problems, output)
    bad = [c for c in cells if c.problem]
    form_problems = sum(map(len, problems.values()))
    load_s = sum(c.report.get("load_s", 0.0) for c in cells)
    for c in bad:  # once more, where a long log ends
        print(f"BAD  {c.title}  {c.problem}")
    print(f"\n{len(cells)} cells in {wall_s:.0f} s ({load_s:.0f} s of load); {shown_path(output)}/verify.json")
    print(f"{len(cells) - len(bad)} passed, {len(bad) + form_problems} failed")
    return int(Outcome.FAIL if bad or form_problems else Outcome.PASS)


def make_output(chosen: Path | None) -> Path:
    """The empty folder for what a verification writes. Raises LabError when it has something already, MachineError when it cannot be made."""
    output = (chosen or find_root() / ".labs" / "verify" / time.strftime("%Y%m%d-%H%M%S")).absolute()  # cells run elsewhere
    try:
        output.mkdir(parents=True, exist_ok=chosen is not None)
        is_taken = any(output.iterdir())
    except FileExistsError:
        is_taken = True
    except OSError as error:
        raise MachineError(f"{shown_path(output)} cannot be made: {error}", "is the disk full, or read-only?") from error
    if is_taken:
        raise LabError(f"{shown_path(output)} is there already, and is no empty folder", "remove it, or say another --output")
    return output


def fetch_ahead(cells: Sequence[Cell], plan: Plan) -> None:
    """Bring what the first cells would fetch in the time that they have. What cannot be had is theirs to say."""
    from runner.stack.embedded import SERVERS
    from runner.stack.provision import Cache
    from runner.toolchains import find_program, find_toolchains

    cache, labs = Cache(), {cell.lab.name: cell.lab for cell in cells}.values()
    wanted: list[Callable[[], object]] = [partial(find_toolchains, lab.app.build, (), cache) for lab in labs if lab.app.build]
    if plan.backend == "embedded":
        wanted += [partial(SERVERS[service]().fetch, cache) for service in sorted({service for lab in labs for service in lab.services})]
        wanted += [partial(find_program, program, cache) for program in sorted({program for lab in labs for program in lab.programs})]
    for bring in wanted:
        with suppress(LabsError):
            bring()


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
            run_cell(cell, plan, output)
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


def run_cell(cell: Cell, plan: Plan, output: Path) -> None:
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
    argv += ["-c", str(find_root() / "pyproject.toml")] + [f"--seed={plan.seed}"] * (plan.seed is not None) + [f"--backend={plan.backend}"]
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}  # in PYTEST_ADDOPTS a -x would leave out checks
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
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
        cell.problem = writable(cell.expectation.judge(cell.report))


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
