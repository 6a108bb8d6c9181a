"""`python -m services.gateway`."""

from services.gateway import app
from services.gateway.settings import GatewaySettings
from services.platform import process

if __name__ == "__main__":
    process.run("gateway", GatewaySettings, app.build)
