"""`python -m services.order`."""

from services.order.app import build
from services.order.settings import OrderSettings
from services.platform import process

if __name__ == "__main__":
    process.run("order", OrderSettings, build)
