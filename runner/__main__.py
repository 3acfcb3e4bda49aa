"""`python -m runner` is the same as `labs`."""

from runner.cli import main

raise SystemExit(main())
