"""The comments of the contracts, by full name; descriptors at run time carry none."""

from paymesh.comments import COMMENTS


def comment_of(full_name: str) -> str:
    """Return the leading comment of a service, method, message, field, enum or value; "" where it has none."""
    return COMMENTS.get(full_name, "")
