"""What stands in for the outside in tests: each fake passes the suite of the real thing, where there is one."""
