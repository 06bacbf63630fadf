"""PostgreSQL on the wire, without I/O: start-up, messages, errors, SCRAM and MD5.

Beside it stands the framing in C that the engine uses (``framing.c``). Nothing here waits, and nothing here knows a socket.

Source of truth: the chapter "Frontend/Backend Protocol" of PostgreSQL's documentation.
"""
