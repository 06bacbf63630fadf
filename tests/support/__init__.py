"""What more than one test needs. Imported as ``tests.support.…``."""
