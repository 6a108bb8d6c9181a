"""`python -m services.config`."""

from services.config import app
from services.config.settings import ConfigSettings
from services.platform import process

if __name__ == "__main__":
    process.run("config", ConfigSettings, app.build)
