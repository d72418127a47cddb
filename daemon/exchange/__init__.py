"""Talk to exchanges through ccxt."""
