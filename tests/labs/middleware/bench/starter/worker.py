"""An extra process without HTTP."""

import json
import os
import signal

print(json.dumps(dict(os.environ)), flush=True)
signal.pause()
