"""Alembic migrations. Revisions are numbered 0001, 0002 ... and so are their files, `versions/<revision>_<what>.py`."""
