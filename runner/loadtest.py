"""`labs load`: a lab's servers and app kept up, with Locust's own web page on them."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from runner.backend import choose_backend
from runner.children import clean_environment
from runner.errors import MachineError
from runner.judge import Order
from runner.lab import copy_starter, find_lab, resolve_submission
from runner.report import new_run_folder
from runner.run import Run, new_seed
from runner.stack import tail_of
from runner.stack.ports import HOST, is_port_free

AT_ONCE_S = 5.0


def serve(order: Order, *, web_port: int, options: Sequence[str]) -> int:
    """Keep the lab up until Ctrl-C, or until Locust ends in order. Raises MachineError when its page cannot listen, or it fails or ends at once."""
    lab = find_lab(order.name)
    if order.submission in (None, "mine"):
        copy_starter(lab)
    submission = resolve_submission(lab, order.submission)
    if not is_port_free(web_port):
        raise MachineError(f"no page can listen on port {web_port}", hint="is it taken, by another `labs load`? say a free one: --web-port PORT")
    backend = choose_backend(order.backend, lab.services, lab.programs)
    print(f"backend: {backend}", flush=True)
    run = Run(lab, submission, new_run_folder(lab.name), new_seed() if order.seed is None else order.seed, backend)
    try:
        run.start(with_load=False)
        targets = ",".join(f"http://{run.stack.host}:{r.port}" for r in run.app.replicas)
        argv = [sys.executable, "-m", "runner.recorder", "web", targets, "-f", str(lab.folder / "locustfile.py")]
        argv += ["--web-host", HOST, "--web-port", str(web_port), *options]
        # The peers have this seed as well: a locustfile that signs, say, has to have the keys that a peer publishes.
        env = {**clean_environment(run.folder), "PYTHONPATH": str(Path(__file__).parent.parent), "LAB_PLAN": json.dumps({"seed": run.seed})}
        begun = time.monotonic()
        locust = run.children.spawn("locust", argv, env=env, cwd=run.folder, log=run.folder / "locust.log")
        print(
            f"{run.addresses()}\n  {'locust':<12} http://{HOST}:{web_port}   <- open this, start a load\n\nup until Ctrl-C; logs in {run.folder}",
            flush=True,
        )
        while locust.exit_code is None:
            run.app.check_alive()
            locust.wait(0.5)
        if locust.exit_code not in (0, 1) or time.monotonic() < begun + AT_ONCE_S:  # 1: some requests failed
            hint = "it is in what Locust printed: the lab's locustfile.py, or an option after `--`"
            raise MachineError(f"Locust ended (exit code {locust.exit_code})\n{tail_of(locust.log)}", hint)
    except KeyboardInterrupt:
        print("\nstopping", flush=True)
    finally:
        run.stop()
    return 0
