"""Every candle stream that is described, by exchange."""

from __future__ import annotations

from tests.exchange_messages import a_to_b, c_to_k, l_to_z

STREAMS = [*a_to_b.STREAMS, *c_to_k.STREAMS, *l_to_z.STREAMS]
