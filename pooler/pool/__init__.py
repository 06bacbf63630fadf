"""Who gets a server, how many there may be, how old they grow."""

from pooler.pool.pool import Limits, Pool, Server, ServerFailed
from pooler.pool.quota import Quota

__all__ = ["Limits", "Pool", "Quota", "Server", "ServerFailed"]
