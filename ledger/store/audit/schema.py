"""The tables of an audit's workbook: a SQLite file of its own, beside no site's database. Counters are eight bytes, big endian:
SQLite's numbers end at 2^63, and these sort alike."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Column, Index, Integer, LargeBinary, MetaData, Table, Text, UniqueConstraint

APPLICATION: Final = 0x53534157
"""SQLite's application id of a workbook, `SSAW`: another program's file, or a site's database, is not taken for one."""
VERSION: Final = 1

metadata = MetaData()

meta = Table("meta", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))

manifest = Table(
    "manifest",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("find_key", LargeBinary, nullable=False),
)

account = Table(
    "account",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("key", LargeBinary, nullable=False),
    Column("first", LargeBinary, nullable=False),
    Column("last", LargeBinary, nullable=False),
    Column("subject", Text),
    Column("visit", Text),
    Index("account_key", "key", "first"),
)

explained = Table(
    "explained",
    metadata,
    Column("key", LargeBinary, primary_key=True),
    Column("counter", LargeBinary, primary_key=True),
    Column("is_other", Integer, primary_key=True, comment="of an account's `others`; else an image's origin"),
    sqlite_with_rowid=False,
)

entry = Table(
    "entry",
    metadata,
    Column("manifest", Integer, primary_key=True),
    Column("line", Integer, primary_key=True),
    Column("lists", Integer, nullable=False, comment="0 for a heartbeat's: it says what was made"),
    Column("record", LargeBinary, comment="null, as all of an image, for a visit without images"),
    Column("pixels", LargeBinary),
    Column("instance", LargeBinary),
    Column("subject", Text, nullable=False),
    Column("visit", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("evidence", Text),
    Column("origin_key", LargeBinary),
    Column("origin_counter", LargeBinary),
    Column("reason", Text),
    Index("entry_record", "record", "manifest", unique=True),
    Index("entry_instance", "instance", "pixels"),
    Index("entry_pixels", "pixels"),
    Index("entry_visit", "manifest", "subject", "visit", "status"),
    sqlite_with_rowid=False,
)

image = Table(
    "image",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("path", LargeBinary, nullable=False, unique=True, comment="as the system names the file: not always UTF-8"),
    Column("stamp", Text, nullable=False),
    Column("run", Integer, nullable=False, comment="the last run that saw it"),
    Column("listed", LargeBinary, comment="the record of the listed image that it is"),
    Column("how", Integer, nullable=False),
    Column("copy", Integer, nullable=False, comment="0, or how many are this listed image before it"),
    Column("is_read", Integer, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("exit_code", Integer, nullable=False),
    Column("record", LargeBinary),
    Column("origin_key", LargeBinary),
    Column("origin_counter", LargeBinary),
    Column("said", Text, nullable=False, comment="device, times and reasons (JSON)"),
    Column("custody", Text, comment="the steps with a finding (JSON)"),
    Index("image_listed", "listed", "how", "path"),
)

step = Table(
    "step",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("action", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("finding", Text, nullable=False),
    Column("detail", Text, nullable=False),
    UniqueConstraint("action", "operation", "by", "finding", "detail"),
)

image_step = Table(
    "image_step",
    metadata,
    Column("image", Integer, primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("step", Integer, nullable=False),
    Column("claimed", Text, nullable=False, comment="twenty digits"),
    Column("after", Text),
    Column("before", Text),
    Column("record", LargeBinary),
    Column("parent", Integer, comment="the place of its first parent"),
    sqlite_with_rowid=False,
)
