"""One Trio task per client: log in, attach, answer what the engine asks, leave."""
