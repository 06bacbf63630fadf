"""Many clients and pools: who is logging in, which pool is whose, the end of all."""

from pooler.service.service import Service

__all__ = ["Service"]
