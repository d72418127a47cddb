"""Run the `candlecast` command as `python -m daemon`."""

import sys

from daemon.cli.main import main

sys.exit(main())
