"""Predictions and known issues of an attempt. A revision is history: it repeats what later may change."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add a table for each; attempts recorded before have neither."""
    op.create_table(
        "prediction",
        sa.Column("attempt_id", _COUNTER, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("attempt_id", "position", name="pk_prediction"),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempt.id"], name="fk_prediction_attempt", ondelete="CASCADE"),
    )
    op.create_table(
        "issue_match",
        sa.Column("attempt_id", _COUNTER, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("issue", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("grade", sa.Text, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("fixed_in", sa.Text, nullable=False),
        sa.Column("workaround", sa.Text, nullable=False),
        sa.Column("fault", sa.Text, nullable=False),
        sa.Column("confidence", sa.Text, nullable=False),
        sa.Column("sources", sa.Text, nullable=False),
        sa.Column("excerpt", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("attempt_id", "position", name="pk_issue_match"),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempt.id"], name="fk_issue_match_attempt", ondelete="CASCADE"),
    )
    op.create_index("ix_issue_match_issue", "issue_match", ["issue"])
