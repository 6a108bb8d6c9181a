"""Everything that is generated from the contracts, remade offline: `python -m services.cli.generate [--check]`.

The order is the order of need: third-party protos from the installed wheels, stubs and descriptor set from `protos`, what our
linter has to say, tables from wheels and descriptors, and at last the planes that `services.mesh` renders. A stage that
imports what an earlier one wrote runs in a process of its own, so that a fresh checkout without `gen/` bootstraps in one run.
"""
