"""The first schema. A revision is history: it repeats the tables instead of importing what later changes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "run",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("started", sa.Text, nullable=False),
        sa.Column("finished", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("matrix_text", sa.Text, nullable=False),
        sa.Column("matrix_sha256", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("tool_version", sa.Text, nullable=False),
        sa.Column("options", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_run"),
        sa.CheckConstraint("state IN ('running', 'finished', 'interrupted')", name=op.f("ck_run_state")),
    )
    op.create_table(
        "plan",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("cell_id", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("cell", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("run_id", "cell_id", "number", name="pk_plan"),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name="fk_plan_run", ondelete="CASCADE"),
        sa.CheckConstraint("state IN ('planned', 'running', 'done', 'left_out')", name=op.f("ck_plan_state")),
    )
    op.create_index("ix_plan_run_id_state_position", "plan", ["run_id", "state", "position"])
    op.create_table(
        "attempt",
        sa.Column("id", _COUNTER, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("cell_id", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("rung", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("started", sa.Text, nullable=False),
        sa.Column("finished", sa.Text, nullable=False),
        sa.Column("facts", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_attempt"),
        sa.UniqueConstraint("run_id", "cell_id", "number", name="uq_attempt_run_id_cell_id_number"),
        sa.ForeignKeyConstraint(
            ["run_id", "cell_id", "number"],
            ["plan.run_id", "plan.cell_id", "plan.number"],
            name="fk_attempt_plan",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_attempt_cell_id_run_id_number", "attempt", ["cell_id", "run_id", "number"])
    _create_results()


def _create_results() -> None:
    op.create_table(
        "stage_result",
        sa.Column("attempt_id", _COUNTER, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("seconds", sa.Float(53), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("attempt_id", "position", name="pk_stage_result"),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempt.id"], name="fk_stage_result_attempt", ondelete="CASCADE"),
    )
    op.create_table(
        "test_result",
        sa.Column("attempt_id", _COUNTER, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("seconds", sa.Float(53), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("details", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("attempt_id", "position", name="pk_test_result"),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempt.id"], name="fk_test_result_attempt", ondelete="CASCADE"),
    )
    op.create_table(
        "measurement",
        sa.Column("attempt_id", _COUNTER, nullable=False),
        sa.Column("test_position", sa.Integer, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("better", sa.Text, nullable=False),
        sa.Column("n", sa.BigInteger, nullable=False),
        sa.Column("minimum", sa.Float(53)),
        sa.Column("p50", sa.Float(53)),
        sa.Column("p95", sa.Float(53)),
        sa.Column("maximum", sa.Float(53)),
        sa.Column("samples", sa.Text, nullable=False),
        sa.Column("roofline", sa.Float(53)),
        sa.Column("roofline_source", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("attempt_id", "test_position", "position", name="pk_measurement"),
        sa.ForeignKeyConstraint(
            ["attempt_id", "test_position"],
            ["test_result.attempt_id", "test_result.position"],
            name="fk_measurement_test_result",
            ondelete="CASCADE",
        ),
    )
    op.create_table(
        "evidence",
        sa.Column("attempt_id", _COUNTER, nullable=False),
        sa.Column("stage_position", sa.Integer, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("truncated", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("attempt_id", "stage_position", "position", name="pk_evidence"),
        sa.ForeignKeyConstraint(
            ["attempt_id", "stage_position"],
            ["stage_result.attempt_id", "stage_result.position"],
            name="fk_evidence_stage_result",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_evidence_sha256", "evidence", ["sha256"])
