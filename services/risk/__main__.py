"""Runs the risk service."""

from services.platform import process
from services.risk.app import build
from services.risk.settings import Settings

if __name__ == "__main__":
    process.run("risk", Settings, build)
