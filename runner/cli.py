"""The `labs` command: what can be asked of the kit, and nothing of how it is done."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from runner.backend import BACKENDS
from runner.errors import LabsError
from runner.verdict import Outcome

DESCRIPTION = """\
Production incidents that you can run. A lab brings up real servers, starts your service, drives it with load, breaks things on
purpose, and says whether the promise held, and why not.

  labs list                      the labs, and where you stand
  labs run cache-stampede        run your version (the first time: a copy of the starter) and get a verdict
  labs hint cache-stampede       the next of three hints
"""
SUBMISSION_HELP = "starter, solution, wrong/<bug>, mine or a path to a folder (default: mine, which is my/<lab>/)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 PASS, 1 FAIL, 2 INCONCLUSIVE, 3 ERROR."""
    ours, for_locust = cut_off_locust(sys.argv[1:] if argv is None else argv)
    arguments = build_parser().parse_args(ours)
    if for_locust:
        arguments.locust += for_locust
    try:
        code = int(arguments.command(arguments))
        sys.stdout.flush()  # a reader that is gone shows here, not when Python ends
    except LabsError as error:
        if arguments.debug:
            traceback.print_exc()
        print(f"ERROR  {error}", file=sys.stderr)
        if error.hint:
            print(f"\nhint: {error.hint}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\ninterrupted; everything it started has ended", file=sys.stderr)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is flushed once more at the end
    except Exception as error:  # noqa: BLE001 - Python's own exit code 1 would read FAIL
        if arguments.debug:
            traceback.print_exc()
        print(f"ERROR  the kit itself failed: {type(error).__name__}: {error}\n\nhint: --debug, before the command, shows where", file=sys.stderr)
    else:
        return code
    return int(Outcome.ERROR)


def cut_off_locust(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """What is ours of a command line, and what follows `--` after `load`: argparse of Python 3.11 takes no more words once an option has come."""
    is_load = next((word for word in words if not word.startswith("-")), "") == "load"
    place = words.index("--") if is_load and "--" in words else len(words)
    return words[:place], words[place + 1 :]


class Parser(argparse.ArgumentParser):
    """A wrong command line is an ERROR; argparse's own exit code 2 would read INCONCLUSIVE."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line, and how it is used."""
        self.print_usage(sys.stderr)
        self.exit(int(Outcome.ERROR), f"ERROR  {message}\n\nhint: `{self.prog} --help` tells more\n")


def build_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = Parser(prog="labs", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, command: object, about: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=about, description=about)
        one.set_defaults(command=command)
        return one

    def add_run_options(one: argparse.ArgumentParser) -> None:
        one.add_argument("--submission", help=SUBMISSION_HELP)
        one.add_argument("--seed", type=int, help="repeat the random choices of an earlier run")
        add_backend(one)

    run = add("run", run_lab, "Run one submission of a lab to its verdict.")
    run.add_argument("name", help="the lab, as `labs list` shows it")
    add_run_options(run)
    run.add_argument("--keep", action="store_true", help="leave everything up after the checks, until Ctrl-C, and print the addresses")
    run.add_argument("--brief", action="store_true", help="no advice on what to do next")
    run.add_argument("--run-folder", type=Path, metavar="FOLDER", help="where report, history and logs go (default: .labs/runs/<time>-<lab>)")
    run.add_argument("--await-go", action="store_true", help="start all but the app, then wait for a line on the standard input (for `labs watch`)")
    run.add_argument("--demonstrate", action="store_true", help="exit 0 when the untouched starter FAILs: that is the incident")

    run.add_argument("--debug-app", action="store_true", help="one replica of the app under debugpy, which waits for a debugger (embedded only)")
    run.add_argument("--debug-port", type=int, default=5678, metavar="PORT", help="where the debugger attaches on 127.0.0.1 (default: 5678)")

    listing = add("list", list_labs, "List the labs by stage and topic, and where you stand.")
    listing.add_argument("--json", action="store_true", help="as data")

    verify = add(
        "verify",
        verify_labs,
        "Prove labs: the starter fails as declared, the solution passes, each wrong answer is caught by its check.",
    )
    verify.add_argument("names", nargs="*", metavar="name", help="labs to prove (default: all)")
    verify.add_argument("--only", action="append", metavar="SUBMISSION", help="only this submission (starter, solution, wrong/<bug>); may repeat")
    verify.add_argument("--mine", action="store_true", help="judge every folder under my/ instead: each must pass")
    verify.add_argument("--shard", type=read_shard, default=(1, 1), metavar="I/N", help="only the I-th of N parts, for N machines")
    verify.add_argument("--changed", metavar="REVISION", help="only labs that differ from a git revision, or all when the kit does")
    verify.add_argument("--repeat", type=read_count, default=1, metavar="N", help="run each N times")
    verify.add_argument("--busy", action="store_true", help="keep every core busy meanwhile")
    sample_help = "of each lab only the starter, the solution and N wrong answers (default: 1), others each day"
    verify.add_argument("--sample", type=int, nargs="?", const=1, default=0, metavar="N", help=sample_help)
    verify.add_argument("--jobs", type=int, default=1, metavar="N", help="labs side by side")
    verify.add_argument("--seed", type=int, help="the same seed for every run")
    verify.add_argument("--output", type=Path, metavar="FOLDER", help="an empty folder for verify.json and junit.xml (default: .labs/verify/<time>)")
    add_backend(verify)

    load = add("load", serve_load, "Keep a lab up and open Locust's own web page on it.")
    load.add_argument("name", help="the lab")
    add_run_options(load)
    load.add_argument("--web-port", type=int, default=8089, help="where Locust's page listens on 127.0.0.1 (default: 8089)")
    load.add_argument("locust", nargs="*", metavar="-- OPTIONS", help="options for Locust itself, after `--`")

    add_learning(add)

    tour = add("tour", take_tour, "See the kit in a minute: a starter fails, its solution passes, side by side.")
    tour.add_argument("name", help="the lab to show")
    add_backend(tour)

    add_upkeep(add)
    return parser


def add_upkeep(add: Callable[[str, object, str], argparse.ArgumentParser]) -> None:
    """The commands for authors and for the machine."""
    new = add("new", create_lab, "Write the template of a new lab.")
    new.add_argument("name", help="topic/name, such as middleware/cache-warming")

    images = add("images", run_images, "Prepare the Docker backend: pull or build the images of servers and apps that are missing.")
    images.add_argument("names", nargs="*", metavar="name", help="redis, mysql, kafka, nginx, node or runtime (default: all)")
    kind = images.add_mutually_exclusive_group()
    kind.add_argument("--local", action="store_true", help="from distribution packages and Maven Central, without an image registry (Linux, root)")
    kind.add_argument("--official", action="store_true", help="from the official images, or not at all")

    pair = add("compare", compare_runs, "Make a page with two runs side by side.")
    pair.add_argument("runs", nargs="*", metavar="RUN", help="folders of runs, or their names below .labs/runs/ (default: the last two)")

    doctor = add("doctor", examine, "Look at this machine, the kit's set-up and what a killed run may have left.")
    doctor.add_argument("--fix", action="store_true", help="remove what was found")


def read_shard(text: str) -> tuple[int, int]:
    """`2/3`."""
    from runner.plan import read_shard as read

    try:
        return read(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no part, such as 1/2") from None


def read_count(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def add_backend(one: argparse.ArgumentParser) -> None:
    """Where a command runs what it runs."""
    about = "where it runs: docker, embedded (child processes of this machine), or auto: docker when it is prepared (default; LABS_BACKEND overrides)"
    one.add_argument("--backend", choices=BACKENDS, default=os.environ.get("LABS_BACKEND") or "auto", help=about)


def add_learning(add: Callable[[str, object, str], argparse.ArgumentParser]) -> None:
    """The commands around a learner's own version."""
    hint = add("hint", show_hint, "Show the next of a lab's three hints.")
    hint.add_argument("name", help="the lab")
    hint.add_argument("--reset", action="store_true", help="forget which hints were shown")

    eye = add("watch", watch_lab, "Judge your version again at each save, with the next run's servers up already.")
    eye.add_argument("name", help="the lab")
    add_backend(eye)

    begin = add("reset", reset_lab, "Begin a lab anew: the starter in the place of your version, which is kept.")
    begin.add_argument("name", help="the lab")

    for name, about in [
        ("solution", "Show what the solution does otherwise than your version."),
        ("debrief", "Show why it works, and what it costs."),
    ]:
        reveal = add(name, reveal_lab, about)
        reveal.add_argument("name", help="the lab")
        reveal.add_argument("--show-anyway", action="store_true", help="also before you have passed")
        reveal.set_defaults(what=name)

    add("next", show_next, "Say what to do now.")

    ui = add("ui", serve_pages, "Serve the roadmap, the labs and their runs as pages for a browser, on this machine alone.")
    ui.add_argument("--port", type=int, default=0, help="where it listens on 127.0.0.1 (default: a port that is free)")
    ui.add_argument("--open", action="store_true", help="open the pages in a browser")
    add_backend(ui)


# Each command imports what it needs when it is called: `labs list` shall not pay for a test runner.


def run_lab(arguments: argparse.Namespace) -> int:
    """`labs run`."""
    from runner.generator import HeadStart

    ahead = HeadStart.make()  # before the imports below, which take as long as its own
    try:
        from runner.judge import Order, judge_submission

        order = Order(
            arguments.name,
            arguments.submission,
            arguments.seed,
            arguments.run_folder,
            is_kept=arguments.keep,
            is_brief=arguments.brief,
            is_demonstration=arguments.demonstrate,
            backend=arguments.backend,
            awaits_go=arguments.await_go,
            debug_port=arguments.debug_port if arguments.debug_app else None,
        )
        return judge_submission(order, ahead)
    finally:
        ahead.close()


def list_labs(arguments: argparse.Namespace) -> int:
    """`labs list`."""
    from runner.checkout import find_root
    from runner.listing import list_labs as describe

    print(describe(find_root(), as_json=arguments.json))
    return 0


def verify_labs(arguments: argparse.Namespace) -> int:
    """`labs verify`."""
    from runner.plan import Plan
    from runner.verify import verify

    return verify(
        Plan(
            names=arguments.names,
            only=arguments.only or [],
            repeat=arguments.repeat,
            is_busy=arguments.busy,
            sample=arguments.sample,
            is_mine=arguments.mine,
            shard=arguments.shard,
            changed=arguments.changed,
            jobs=arguments.jobs,
            seed=arguments.seed,
            output=arguments.output,
            backend=arguments.backend,
        )
    )


def serve_load(arguments: argparse.Namespace) -> int:
    """`labs load`."""
    from runner.judge import Order
    from runner.loadtest import serve

    order = Order(arguments.name, arguments.submission, arguments.seed, backend=arguments.backend)
    return serve(order, web_port=arguments.web_port, options=arguments.locust)


def show_hint(arguments: argparse.Namespace) -> int:
    """`labs hint`."""
    from runner.hints import next_hint
    from runner.lab import find_lab

    print(next_hint(find_lab(arguments.name), reset=arguments.reset))
    return 0


def watch_lab(arguments: argparse.Namespace) -> int:
    """`labs watch`."""
    from runner.lab import find_lab
    from runner.watch import watch

    return watch(find_lab(arguments.name), arguments.backend)


def reset_lab(arguments: argparse.Namespace) -> int:
    """`labs reset`."""
    from runner.attempt import reset
    from runner.lab import find_lab

    print(reset(find_lab(arguments.name)))
    return 0


def reveal_lab(arguments: argparse.Namespace) -> int:
    """`labs solution` and `labs debrief`."""
    from runner.attempt import show_debrief, show_solution
    from runner.lab import find_lab

    show = show_solution if arguments.what == "solution" else show_debrief
    print(show(find_lab(arguments.name), anyway=arguments.show_anyway))
    return 0


def show_next(arguments: argparse.Namespace) -> int:  # noqa: ARG001 - a command takes its arguments, even none
    """`labs next`."""
    from runner.checkout import find_root
    from runner.guidance import describe_next

    print(describe_next(find_root()))
    return 0


def serve_pages(arguments: argparse.Namespace) -> int:
    """`labs ui`."""
    from runner.ui.server import serve

    return serve(arguments.port, arguments.backend, is_opened=arguments.open)


def take_tour(arguments: argparse.Namespace) -> int:
    """`labs tour`."""
    from runner.tour import take

    return take(arguments.name, arguments.backend)


def create_lab(arguments: argparse.Namespace) -> int:
    """`labs new`."""
    from runner.checkout import find_root
    from runner.template import create

    print(create(find_root(), arguments.name))
    return 0


def run_images(arguments: argparse.Namespace) -> int:
    """`labs images`."""
    from runner.images import run_images as prepare

    return prepare(arguments)


def compare_runs(arguments: argparse.Namespace) -> int:
    """`labs compare`."""
    from runner.comparison import compare

    print(compare(arguments.runs))
    return 0


def examine(arguments: argparse.Namespace) -> int:
    """`labs doctor`."""
    from runner.doctor import examine as look

    return look(fix=arguments.fix)
