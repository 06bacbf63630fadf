"""PostgreSQL on the wire, without I/O: start-up, messages, errors, SCRAM and MD5; and the framing in
C that the engine uses. Nothing here waits, and nothing here knows a socket.

Source of truth: the chapter "Frontend/Backend Protocol" of PostgreSQL's documentation.
"""
