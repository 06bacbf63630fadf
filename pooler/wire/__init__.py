"""PostgreSQL on the wire, without I/O: start-up, messages, errors, SCRAM and MD5.

Beside it stands ``framing.c``, the framing that the engine uses. Nothing here waits, and nothing
here knows a socket.

Source of truth: the chapter "Frontend/Backend Protocol" of PostgreSQL's documentation.
"""
