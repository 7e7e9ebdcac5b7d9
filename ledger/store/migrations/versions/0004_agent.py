"""The agent's spool, records that came over the network, what an anchor cost, and keys that sign no more from here."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "spooled",
        sa.Column("number", number, primary_key=True, autoincrement=True),
        sa.Column("name", sa.Text, nullable=False, unique=True, comment="the file's name in the spool"),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False, comment="bytes of the file"),
        sa.Column("received", sa.BigInteger, nullable=False, comment="microseconds since 1970"),
        sa.Column("forward", sa.Text, nullable=False, comment="none, waiting, sent, refused"),
        sa.Column("forward_attempts", sa.Integer, nullable=False),
        sa.Column("forward_after", sa.BigInteger, nullable=False, comment="not before, microseconds since 1970"),
        sa.Column("seal", sa.Text, nullable=False, comment="waiting, sealed, received, none, refused"),
        sa.Column("seal_attempts", sa.Integer, nullable=False),
        sa.Column("seal_after", sa.BigInteger, nullable=False, comment="not before, microseconds since 1970"),
        sa.Column("record_id", sa.LargeBinary),
        sa.Column("detail", sa.Text, comment="why it was refused, without a value of the image"),
        sa.Column("finished", sa.BigInteger, comment="when both were done, microseconds since 1970"),
        sqlite_autoincrement=True,
    )
    op.create_index("spooled_forward", "spooled", ["forward", "forward_after"])
    op.create_index("spooled_seal", "spooled", ["seal", "seal_after"])
    op.create_table(
        "submitted",
        sa.Column("number", number, primary_key=True, autoincrement=True),
        sa.Column("client", sa.Text, nullable=False, comment="the site that sent it"),
        sa.Column("signer", sa.LargeBinary, nullable=False, comment="key id"),
        sa.Column("counter", sa.BigInteger, nullable=False),
        sa.Column("record_id", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("entry", sa.LargeBinary, nullable=False, comment="the log entry"),
        sa.Column("received", sa.BigInteger, nullable=False, comment="microseconds since 1970"),
        sa.Column("log_index", sa.BigInteger, unique=True, comment="null while queued"),
        sa.UniqueConstraint("signer", "counter", name="submitted_slot"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "submitting_key",
        sa.Column("signer", sa.LargeBinary, primary_key=True, comment="key id"),
        sa.Column("certificate", sa.LargeBinary, nullable=False, comment="DER"),
        sa.Column("forked", sa.LargeBinary, comment="a log entry that contradicts what is known of the key"),
    )
    op.create_table(
        "submitting_client",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("token", sa.LargeBinary, nullable=False, comment="SHA-256 of the token"),
        sa.Column("added", sa.BigInteger, nullable=False, comment="seconds since 1970"),
    )
    op.create_table(
        "deposited",
        sa.Column("find", sa.LargeBinary, primary_key=True, comment="the token by which it is found"),
        sa.Column("client", sa.Text, primary_key=True, comment="the site that sent it"),
        sa.Column("body", sa.LargeBinary, nullable=False, comment="an encrypted bundle"),
        sa.Column("received", sa.BigInteger, nullable=False, comment="microseconds since 1970"),
    )
    op.create_table(
        "payment",
        sa.Column("transaction", sa.LargeBinary, primary_key=True, comment="hash"),
        sa.Column("nonce", sa.BigInteger, nullable=False),
        sa.Column("sent", sa.BigInteger, nullable=False, comment="seconds since 1970"),
        sa.Column("most_wei", sa.Text, nullable=False, comment="the most that it can cost, decimal"),
        sa.Column("fee_wei", sa.Text, comment="what it cost, decimal; null while no block is known to have it"),
        sa.Column("final", sa.Integer, nullable=False, comment="1 once that cannot change any more"),
    )
    op.create_index("payment_sent", "payment", ["sent"])
    op.create_table(
        "barred_key",
        sa.Column("signer", sa.LargeBinary, primary_key=True, comment="key id"),
        sa.Column("why", sa.Text, nullable=False, comment="why it signs nothing more from this database"),
    )
    op.add_column(
        "record", sa.Column("deposit", sa.LargeBinary, comment="the secret of its deposit; of one that is withdrawn the token")
    )
    op.add_column(
        "record",
        sa.Column("deposited", sa.Integer, comment="0 to be left at the node, 1 left, 2 to be withdrawn, 3 refused"),
    )
    op.create_index("record_deposited", "record", ["deposited"])
    with op.batch_alter_table("anchor") as batch:
        batch.add_column(sa.Column("fee_wei", sa.Text, comment="what the transaction cost, decimal"))
        batch.add_column(sa.Column("sent", sa.BigInteger, comment="seconds since 1970"))
