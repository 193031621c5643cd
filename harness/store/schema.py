"""The tables, as the newest revision of :mod:`harness.store.migrations` leaves them.

Everything that came from a guest passes through :class:`SafeText` or :class:`JsonText`: what PostgreSQL cannot hold
(NUL characters, lone surrogates, NaN inside JSON) must not cost an attempt.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

REVISION = "0002"
"""The newest revision of the migrations; raised together with a new file among them."""

METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


class SafeText(TypeDecorator[str]):
    """Text in which NUL becomes U+2400 and a lone surrogate U+FFFD, so that every database can hold it."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Replace what cannot be stored."""
        if value is None:
            return None
        return value.replace("\0", "\u2400").encode("utf-8", "surrogatepass").decode("utf-8", "replace")


class JsonText(TypeDecorator[Any]):
    """JSON kept as text with sorted keys: it can be compared, and Python's NaN and infinities survive."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Encode; anything beyond ASCII is escaped, NUL and lone surrogates with it."""
        return None if value is None else json.dumps(value, sort_keys=True, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Decode."""
        return None if value is None else json.loads(value)


# SQLite counts up only a column that is declared as exactly INTEGER PRIMARY KEY.
_COUNTER = BigInteger().with_variant(Integer, "sqlite")

RUN = Table(
    "run",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("started", Text, nullable=False),
    Column("finished", Text),
    Column("state", Text, CheckConstraint("state IN ('running', 'finished', 'interrupted')", "state"), nullable=False),
    Column("matrix_text", SafeText, nullable=False),
    Column("matrix_sha256", Text, nullable=False),
    Column("host", JsonText, nullable=False),
    Column("tool_version", Text, nullable=False),
    Column("options", JsonText, nullable=False),
)

PLAN = Table(
    "plan",
    METADATA,
    Column("run_id", Text, ForeignKey(RUN.c.id, ondelete="CASCADE"), primary_key=True),
    Column("cell_id", Text, primary_key=True),
    # 1 … boots; 0 and below for what is left out
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("position", Integer, nullable=False),
    Column("cell", Text),
    Column(
        "state",
        Text,
        CheckConstraint("state IN ('planned', 'running', 'done', 'left_out')", "state"),
        nullable=False,
    ),
    Column("owner", JsonText),
    Column("reason", SafeText, nullable=False, server_default=""),
    Index(None, "run_id", "state", "position"),
)

ATTEMPT = Table(
    "attempt",
    METADATA,
    Column("id", _COUNTER, primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("cell_id", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("rung", Text, nullable=False),
    Column("reason", SafeText, nullable=False),
    Column("started", SafeText, nullable=False),
    Column("finished", SafeText, nullable=False),
    Column("facts", JsonText, nullable=False),
    UniqueConstraint("run_id", "cell_id", "number"),
    ForeignKeyConstraint(
        ["run_id", "cell_id", "number"], [PLAN.c.run_id, PLAN.c.cell_id, PLAN.c.number], ondelete="CASCADE"
    ),
    Index(None, "cell_id", "run_id", "number"),
)

STAGE_RESULT = Table(
    "stage_result",
    METADATA,
    Column("attempt_id", _COUNTER, ForeignKey(ATTEMPT.c.id, ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("stage", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("seconds", Float(53), nullable=False),
    Column("reason", SafeText, nullable=False),
)

TEST_RESULT = Table(
    "test_result",
    METADATA,
    Column("attempt_id", _COUNTER, ForeignKey(ATTEMPT.c.id, ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("name", SafeText, nullable=False),
    Column("stage", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", SafeText, nullable=False),
    Column("seconds", Float(53), nullable=False),
    Column("kind", Text, nullable=False),
    Column("details", JsonText, nullable=False),
)

MEASUREMENT = Table(
    "measurement",
    METADATA,
    Column("attempt_id", _COUNTER, primary_key=True),
    Column("test_position", Integer, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("name", SafeText, nullable=False),
    Column("unit", SafeText, nullable=False),
    Column("better", Text, nullable=False),
    Column("n", BigInteger, nullable=False),
    Column("minimum", Float(53)),
    # NULL stands for NaN, which SQLite cannot hold
    Column("p50", Float(53)),
    Column("p95", Float(53)),
    Column("maximum", Float(53)),
    Column("samples", JsonText, nullable=False),
    Column("roofline", Float(53)),
    Column("roofline_source", SafeText, nullable=False),
    ForeignKeyConstraint(
        ["attempt_id", "test_position"],
        [TEST_RESULT.c.attempt_id, TEST_RESULT.c.position],
        ondelete="CASCADE",
    ),
)

EVIDENCE = Table(
    "evidence",
    METADATA,
    Column("attempt_id", _COUNTER, primary_key=True),
    Column("stage_position", Integer, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("stage", Text, nullable=False),
    Column("name", SafeText, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("media_type", SafeText, nullable=False),
    Column("truncated", Boolean, nullable=False),
    ForeignKeyConstraint(
        ["attempt_id", "stage_position"],
        [STAGE_RESULT.c.attempt_id, STAGE_RESULT.c.position],
        ondelete="CASCADE",
    ),
    Index(None, "sha256"),
)

PREDICTION = Table(
    "prediction",
    METADATA,
    Column("attempt_id", _COUNTER, ForeignKey(ATTEMPT.c.id, ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("stage", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", SafeText, nullable=False),
    Column("source", SafeText, nullable=False),
)

ISSUE_MATCH = Table(
    "issue_match",
    METADATA,
    Column("attempt_id", _COUNTER, ForeignKey(ATTEMPT.c.id, ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("issue", SafeText, nullable=False),
    Column("title", SafeText, nullable=False),
    Column("stage", Text, nullable=False),
    Column("grade", Text, nullable=False),
    Column("cause", SafeText, nullable=False),
    Column("fixed_in", SafeText, nullable=False),
    Column("workaround", SafeText, nullable=False),
    Column("fault", SafeText, nullable=False),
    Column("confidence", SafeText, nullable=False),
    Column("sources", JsonText, nullable=False),
    Column("excerpt", SafeText, nullable=False),
    Index(None, "issue"),
)
