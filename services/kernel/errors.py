"""The one error that the rooms raise."""

from __future__ import annotations


class DomainError(Exception):
    """A refusal or failure with a reason of the contract.

    ``reason`` is a name of paymesh.error.v1.ErrorReason without its prefix; ``metadata`` has at least the keys that the
    reason lists, rendered as strings. Status, texts and whether a repeat gets it again are the contract's.
    """

    def __init__(self, reason: str, /, **metadata: str | int) -> None:
        """Make an error of ``reason`` about ``metadata``."""
        self.reason = reason
        self.metadata = {key: str(value) for key, value in metadata.items()}
        super().__init__(reason)  # what a copy is made with; the rest is its state

    def __str__(self) -> str:
        """Render for logs: the reason and what it is about."""
        return " ".join([self.reason, *(f"{k}={v}" for k, v in self.metadata.items())])
