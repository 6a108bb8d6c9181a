"""Generated from protos/ by `tox -e gen`. Do not edit."""
