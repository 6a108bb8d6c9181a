"""`paymesh bench`: figures of speed.md, each a ratio inside one run, labelled with the engine that gave it."""
