"""The pooler beside direct connections, for as long as one likes: ``make soak``."""
