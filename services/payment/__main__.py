"""Runs the payment service."""

from services.payment.app import build
from services.payment.settings import Settings
from services.platform import process

if __name__ == "__main__":
    process.run("payment", Settings, build)
