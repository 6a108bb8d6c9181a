"""`python -m services.sandbox`."""

import sys

from services.platform.settings import SettingsError, load
from services.sandbox.app import build
from services.sandbox.settings import Settings

if __name__ == "__main__":
    try:
        build(load(Settings)).run()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(3)
