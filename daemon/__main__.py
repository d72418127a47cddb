"""`python -m daemon` is the `candlecast` command."""

import sys

from daemon.cli import main

sys.exit(main())
