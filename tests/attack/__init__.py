"""Programs that attack the library for longer than a test may take: ``python -m tests.attack.pickles 10000`` and others."""
