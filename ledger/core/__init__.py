"""The pure core: frozen values in, frozen values out; no I/O, clock, randomness or logging."""
