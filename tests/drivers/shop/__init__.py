"""A Django project of one application: ``python -m tests.drivers.shop HOST PORT USER DATABASE``."""
