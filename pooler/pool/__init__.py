"""Who gets a server, how many there may be, how old they grow."""

from pooler.pool.guest import Guest
from pooler.pool.place import Place
from pooler.pool.pool import Limits, Pool
from pooler.pool.quota import Quota
from pooler.pool.server import Server, ServerFailed

__all__ = ["Guest", "Limits", "Place", "Pool", "Quota", "Server", "ServerFailed"]
