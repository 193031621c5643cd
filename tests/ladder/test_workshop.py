"""How patient a run is with emulation."""

from __future__ import annotations

import pytest

from harness.errors import UserError
from harness.ladder.workshop import EMULATION_FACTOR, emulation_factor


def test_a_slow_host_may_ask_for_more_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KDMATRIX_EMULATION_FACTOR", raising=False)
    assert emulation_factor() == EMULATION_FACTOR
    monkeypatch.setenv("KDMATRIX_EMULATION_FACTOR", "12.5")
    assert emulation_factor() == 12.5


@pytest.mark.parametrize("said", ["0", "-1", "nan", "inf", "fast", "1e9"])
def test_what_is_no_factor_is_bad_input(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDMATRIX_EMULATION_FACTOR", said)
    with pytest.raises(UserError, match=rf"^KDMATRIX_EMULATION_FACTOR={said}: write a number from 1 to 1000"):
        emulation_factor()
