"""The kernel: money, ids, clock, errors. Pure, standard library alone, imported by everyone."""
