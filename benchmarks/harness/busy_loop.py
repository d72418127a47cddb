"""Keep a third of a core busy until ended: 10 ms of every 30.

python -m benchmarks.harness.busy_loop
"""

from __future__ import annotations

import time
from typing import Final

_PERIOD_S: Final = 0.03
_SHARE: Final = 1 / 3


def main() -> None:
    """Spin and sleep in turns."""
    while True:
        # In processor time, so that it takes its share where it has to wait for a processor.
        began_s, used_s = time.monotonic(), time.process_time()
        while time.process_time() - used_s < _SHARE * _PERIOD_S:
            pass
        time.sleep(max(0.0, began_s + _PERIOD_S - time.monotonic()))


if __name__ == "__main__":
    main()
