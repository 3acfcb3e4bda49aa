"""Ends at its first line that does something, and leaves a child that goes on."""

import subprocess
import sys

print("about to import", flush=True)
subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], stdout=subprocess.DEVNULL, start_new_session=True)
import a_module_that_is_not_there  # noqa: E402, F401
