"""The checks of trio_backends.testing, by what they are about."""
