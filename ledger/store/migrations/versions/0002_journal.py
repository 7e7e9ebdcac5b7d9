"""The device's journal, the anchors of the log, and block headers."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "site_secret",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "study",
        sa.Column("id", number, primary_key=True, autoincrement=True),
        sa.Column("token", sa.LargeBinary, nullable=False, unique=True, comment="keyed hash of StudyInstanceUID"),
        sa.Column("secret", sa.LargeBinary, comment="null once the study was redacted"),
    )
    op.create_table(
        "seal",
        sa.Column("number", number, primary_key=True, autoincrement=True),
        sa.Column("signer", sa.LargeBinary, nullable=False, comment="key id"),
        sa.Column("counter", sa.BigInteger, nullable=False),
        sa.Column("record_id", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("content", sa.LargeBinary, nullable=False, index=True),
        sa.Column("profile", sa.Text, nullable=False),
        sa.Column("entry", sa.LargeBinary, nullable=False, comment="the log entry"),
        sa.Column("leaves", sa.LargeBinary, nullable=False),
        sa.Column("image_key", sa.LargeBinary),
        sa.Column("study", sa.BigInteger, sa.ForeignKey("study.id"), nullable=False),
        sa.Column("find", sa.LargeBinary, nullable=False, comment="the two look-up tokens of a bundle"),
        sa.Column("pixels_token", sa.LargeBinary, index=True, comment="keyed hash of the pixel digest"),
        sa.Column("instance_token", sa.LargeBinary, index=True, comment="keyed hash of SOPInstanceUID"),
        sa.Column("decoder", sa.Text),
        sa.Column("tiles", sa.LargeBinary, comment="sealed tile hashes, as in a bundle"),
        sa.Column("log_index", sa.BigInteger, unique=True, comment="null while queued"),
        sa.UniqueConstraint("signer", "counter", name="seal_slot"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "anchor",
        sa.Column("new_size", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("old_size", sa.BigInteger, nullable=False),
        sa.Column("checkpoint", sa.Text, nullable=False),
        sa.Column("beacons", sa.LargeBinary, nullable=False, comment="u64 number and 32-byte hash of each, big endian"),
        sa.Column("block_number", sa.BigInteger),
        sa.Column("block_hash", sa.LargeBinary),
        sa.Column("block_time", sa.BigInteger),
        sa.Column("gas_used", sa.BigInteger),
        sa.Column("state", sa.Text, nullable=False, comment="sequenced, included, safe, final"),
        sa.Column("proof", sa.LargeBinary, comment="the state proof, as in a bundle"),
    )
    op.create_table(
        "block_header",
        sa.Column("hash", sa.LargeBinary, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("rlp", sa.LargeBinary, nullable=False),
    )
