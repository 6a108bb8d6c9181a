"""Runs the notification service."""

from services.notification.app import build
from services.notification.settings import Settings
from services.platform import process

if __name__ == "__main__":
    process.run("notification", Settings, build)
