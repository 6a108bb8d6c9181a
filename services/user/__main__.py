"""`python -m services.user`."""

from services.platform import process
from services.user.app import NAME, build
from services.user.settings import Settings

if __name__ == "__main__":
    process.run(NAME, Settings, build)
