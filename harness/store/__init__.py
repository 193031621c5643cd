"""What was observed: runs, attempts, measurements and evidence files, kept so that a killed run loses nothing.

Open it with :meth:`harness.store.store.Store.open`. Nothing heavy is imported here on purpose.
"""
