"""An exchange and a broker of one's own: real protocols, recorded candles, loopback only."""
