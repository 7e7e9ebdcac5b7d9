"""The tables as they are now. How a database came here is told by `migrations/`; a test holds the two together."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

# SQLite makes only INTEGER, not BIGINT, a key that is the row's own address.
Number = BigInteger().with_variant(Integer(), "sqlite")

log_staged = Table(
    "log_staged",
    metadata,
    # Ids are never reused, so that a late swap_head cannot sequence somebody else's batch.
    Column("id", Number, primary_key=True, autoincrement=True),
    Column("old_size", BigInteger, nullable=False),
    Column("new_size", BigInteger, nullable=False),
    Column("checkpoint", Text, nullable=False),
    Column("entries", LargeBinary, nullable=False, comment="an entry bundle of any length"),
    Column("tiles", LargeBinary, nullable=False, comment="the tiles between both sizes, in that order"),
    CheckConstraint("old_size < new_size", name="log_staged_grows"),
    sqlite_autoincrement=True,
)

log_head = Table(
    "log_head",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="log_head_one"), primary_key=True, autoincrement=False),
    Column("size", BigInteger, nullable=False, comment="the sequenced size"),
    Column("staged", BigInteger, ForeignKey("log_staged.id"), comment="the batch that is sequenced and not yet published"),
    Column("checkpoint", Text, comment="the published checkpoint"),
)

log_entry = Table(
    "log_entry",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),
)

log_tile = Table(
    "log_tile",
    metadata,
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("hashes", LargeBinary, nullable=False),
)

site_secret = Table(
    "site_secret",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

study = Table(
    "study",
    metadata,
    Column("id", Number, primary_key=True, autoincrement=True),
    Column("token", LargeBinary, nullable=False, unique=True, comment="keyed hash of StudyInstanceUID"),
    Column("secret", LargeBinary, comment="null once the study was redacted"),
)

record = Table(
    "record",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("type", Text, nullable=False),
    Column("signer", LargeBinary, nullable=False, comment="key id"),
    Column("counter", BigInteger, nullable=False),
    Column("record_id", LargeBinary, nullable=False, unique=True),
    Column("content", LargeBinary, nullable=False, index=True),
    Column("profile", Text, nullable=False),
    Column("own", Text, comment="the members that only this type has, as in a bundle; null for an AcquisitionRecord"),
    Column("entry", LargeBinary, nullable=False, comment="the log entry"),
    Column("generator", Text, comment="what generated the image, or one that it was made of"),
    Column("leaves", LargeBinary, comment="null, as all below, for a record without an image of its own"),
    Column("image_key", LargeBinary),
    Column("kept", LargeBinary, comment="salts of the items that were kept from a parent"),
    Column("study", BigInteger, ForeignKey("study.id"), index=True),
    Column("find", LargeBinary, comment="the two look-up tokens of a bundle"),
    Column("pixels_token", LargeBinary, index=True, comment="keyed hash of the pixel digest"),
    Column("instance_token", LargeBinary, index=True, comment="keyed hash of SOPInstanceUID"),
    Column("decoder", Text),
    Column("tiles", LargeBinary, comment="sealed tile hashes, as in a bundle"),
    Column("log_index", BigInteger, unique=True, comment="null while queued"),
    Column("deposit", LargeBinary, comment="the secret of its deposit; of one that is withdrawn the token"),
    Column("deposited", Integer, comment="0 to be left at the node, 1 left, 2 to be withdrawn, 3 refused"),
    UniqueConstraint("signer", "counter", name="record_slot"),
    Index("record_deposited", "deposited"),
    sqlite_autoincrement=True,
)

record_link = Table(
    "record_link",
    metadata,
    Column("number", Number, ForeignKey("record.number"), primary_key=True, autoincrement=False),
    Column("target", LargeBinary, primary_key=True, index=True, comment="record id of a parent, or of what is approved"),
)

anchor = Table(
    "anchor",
    metadata,
    Column("new_size", BigInteger, primary_key=True, autoincrement=False),
    Column("old_size", BigInteger, nullable=False),
    Column("checkpoint", Text, nullable=False),
    Column("beacons", LargeBinary, nullable=False, comment="u64 number and 32-byte hash of each, big endian"),
    Column("block_number", BigInteger),
    Column("block_hash", LargeBinary),
    Column("block_time", BigInteger),
    Column("gas_used", BigInteger),
    Column("state", Text, nullable=False, comment="sequenced, included, safe, final"),
    Column("proof", LargeBinary, comment="the state proof, as in a bundle"),
    Column("fee_wei", Text, comment="what the transaction cost, decimal"),
    Column("sent", BigInteger, comment="seconds since 1970"),
)

payment = Table(
    "payment",
    metadata,
    Column("transaction", LargeBinary, primary_key=True, comment="hash"),
    Column("nonce", BigInteger, nullable=False),
    Column("sent", BigInteger, nullable=False, comment="seconds since 1970"),
    Column("most_wei", Text, nullable=False, comment="the most that it can cost, decimal"),
    Column("fee_wei", Text, comment="what it cost, decimal; null while no block is known to have it"),
    Column("final", Integer, nullable=False, comment="1 once that cannot change any more"),
    Index("payment_sent", "sent"),
)

block_header = Table(
    "block_header",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("rlp", LargeBinary, nullable=False),
)

spooled = Table(
    "spooled",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("name", Text, nullable=False, unique=True, comment="the file's name in the spool"),
    Column("source", Text, nullable=False),
    Column("size", BigInteger, nullable=False, comment="bytes of the file"),
    Column("received", BigInteger, nullable=False, comment="microseconds since 1970"),
    Column("forward", Text, nullable=False, comment="none, waiting, sent, refused"),
    Column("forward_attempts", Integer, nullable=False),
    Column("forward_after", BigInteger, nullable=False, comment="not before, microseconds since 1970"),
    Column("seal", Text, nullable=False, comment="waiting, sealed, received, none, refused"),
    Column("seal_attempts", Integer, nullable=False),
    Column("seal_after", BigInteger, nullable=False, comment="not before, microseconds since 1970"),
    Column("record_id", LargeBinary),
    Column("detail", Text, comment="why it was refused, without a value of the image"),
    Column("finished", BigInteger, comment="when both were done, microseconds since 1970"),
    Index("spooled_forward", "forward", "forward_after"),
    Index("spooled_seal", "seal", "seal_after"),
    sqlite_autoincrement=True,
)

submitted = Table(
    "submitted",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("client", Text, nullable=False, comment="the site that sent it"),
    Column("signer", LargeBinary, nullable=False, comment="key id"),
    Column("counter", BigInteger, nullable=False),
    Column("record_id", LargeBinary, nullable=False, unique=True),
    Column("entry", LargeBinary, nullable=False, comment="the log entry"),
    Column("received", BigInteger, nullable=False, comment="microseconds since 1970"),
    Column("log_index", BigInteger, unique=True, comment="null while queued"),
    UniqueConstraint("signer", "counter", name="submitted_slot"),
    sqlite_autoincrement=True,
)

submitting_key = Table(
    "submitting_key",
    metadata,
    Column("signer", LargeBinary, primary_key=True, comment="key id"),
    Column("certificate", LargeBinary, nullable=False, comment="DER"),
    Column("forked", LargeBinary, comment="a log entry that contradicts what is known of the key"),
)

submitting_client = Table(
    "submitting_client",
    metadata,
    Column("name", Text, primary_key=True),
    Column("token", LargeBinary, nullable=False, comment="SHA-256 of the token"),
    Column("added", BigInteger, nullable=False, comment="seconds since 1970"),
)

deposited = Table(
    "deposited",
    metadata,
    Column("find", LargeBinary, primary_key=True, comment="the token by which it is found"),
    Column("client", Text, primary_key=True, comment="the site that sent it"),
    Column("body", LargeBinary, nullable=False, comment="an encrypted bundle"),
    Column("received", BigInteger, nullable=False, comment="microseconds since 1970"),
)

barred_key = Table(
    "barred_key",
    metadata,
    Column("signer", LargeBinary, primary_key=True, comment="key id"),
    Column("why", Text, nullable=False, comment="why it signs nothing more from this database"),
)
