"""Pure decisions: no waiting, no sockets. What may go back, who may come in, what is worth a
retry.
"""
