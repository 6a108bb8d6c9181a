"""The `paymesh` command."""
