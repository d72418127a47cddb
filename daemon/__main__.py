"""`python -m daemon` is the `candlecast` command."""

import sys

from daemon.cli.main import main

sys.exit(main())
