from __future__ import annotations

from dataclasses import replace
from itertools import groupby, product

from hypothesis import given
from hypothesis import strategies as st

from harness.model.cell import Cell, DebianKernel, KernelSpec, Series, Timeouts
from harness.model.expand import expand
from harness.model.matrix import Exclude, Include, Matrix, Preset, Rule, with_preset


def kernel(name: str) -> KernelSpec:
    return KernelSpec(name, Series.STABLE, DebianKernel("trixie"))


BASE = Matrix(
    kernels=(kernel("lts"), kernel("rc")),
    guests=("debian-13", "fedora-44"),
    stacks=("cpu-opencl", "intree"),
    devices=("none",),
    tests=("vecadd",),
)


def build(**changes: object) -> Matrix:
    return replace(BASE, **changes)  # type: ignore[arg-type]


def test_cells_come_kernel_by_kernel_in_the_order_of_the_axes() -> None:
    assert [cell.id for cell in expand(BASE).cells] == [
        "debian-13/lts/cpu-opencl/none",
        "debian-13/lts/intree/none",
        "fedora-44/lts/cpu-opencl/none",
        "fedora-44/lts/intree/none",
        "debian-13/rc/cpu-opencl/none",
        "debian-13/rc/intree/none",
        "fedora-44/rc/cpu-opencl/none",
        "fedora-44/rc/intree/none",
    ]


def test_a_cell_carries_what_the_matrix_says() -> None:
    matrix = build(boots=4, timeouts=Timeouts(boot=7.0))
    cell = expand(matrix).cells[0]
    assert cell == Cell("debian-13", kernel("lts"), "cpu-opencl", "none", ("vecadd",), 4, Timeouts(boot=7.0))


def test_the_first_exclude_that_matches_gives_the_reason_with_its_line() -> None:
    matrix = build(
        excludes=(
            Exclude(Rule(kernel=("r*",), stack=("intree",)), "broken", line=12),
            Exclude(Rule(kernel=("rc",)), "too new", line=13),
        )
    )
    expansion = expand(matrix)
    assert {left.cell_id: left.reason for left in expansion.left_out} == {
        "debian-13/rc/cpu-opencl/none": "too new (exclude rule at line 13)",
        "debian-13/rc/intree/none": "broken (exclude rule at line 12)",
        "fedora-44/rc/cpu-opencl/none": "too new (exclude rule at line 13)",
        "fedora-44/rc/intree/none": "broken (exclude rule at line 12)",
    }


def test_globs_are_case_sensitive_and_must_match_the_whole_name() -> None:
    rule = Rule(guest=("Debian*", "edora*", "fedora-4?"))
    assert not rule.matches("debian-13", "k", "s", "none")
    assert rule.matches("fedora-44", "k", "s", "none")


def test_an_include_adds_what_the_axes_lack_next_to_its_kernel() -> None:
    include = Include(Rule(kernel=("lts",), guest=("debian-13",), stack=("nvidia",)), 9, adds_stacks=("nvidia",))
    cells = [cell.id for cell in expand(build(includes=(include,))).cells]
    assert cells.index("debian-13/lts/nvidia/none") == 4
    assert len(cells) == 9


def test_an_include_over_two_axes_adds_only_what_it_names() -> None:
    rule = Rule(stack=("nvidia", "intree"), device=("0000:01:00.0",))
    include = Include(rule, 9, adds_stacks=("nvidia",), adds_devices=("0000:01:00.0",))
    added = {(cell.stack, cell.device) for cell in expand(build(includes=(include,))).cells}
    assert added == {
        ("cpu-opencl", "none"),
        ("intree", "none"),
        ("intree", "0000:01:00.0"),
        ("nvidia", "0000:01:00.0"),
    }


def test_later_includes_win_for_each_value_that_they_name() -> None:
    matrix = build(
        includes=(
            Include(Rule(kernel=("lts",)), 5, boots=3, tests=("triad",), timeouts=(("boot", 1.0), ("test", 2.0))),
            Include(Rule(stack=("intree",)), 6, boots=5, timeouts=(("boot", 9.0),)),
        )
    )
    by_id = {cell.id: cell for cell in expand(matrix).cells}
    both = by_id["debian-13/lts/intree/none"]
    assert (both.boots, both.tests, both.timeouts) == (5, ("triad",), Timeouts(boot=9.0, test=2.0))
    assert by_id["debian-13/rc/cpu-opencl/none"].boots == 1


def test_an_exclude_wins_over_an_include() -> None:
    include = Include(Rule(stack=("nvidia",)), 5, adds_stacks=("nvidia",))
    matrix = build(includes=(include,), excludes=(Exclude(Rule(stack=("nvidia",), kernel=("rc",)), "no", 8),))
    expansion = expand(matrix)
    assert [left.cell_id for left in expansion.left_out] == ["debian-13/rc/nvidia/none", "fedora-44/rc/nvidia/none"]
    assert sum(cell.stack == "nvidia" for cell in expansion.cells) == 2


def test_what_the_caller_finds_unfit_is_left_out_with_the_callers_reason() -> None:
    expansion = expand(BASE, lambda cell: "needs a device" if cell.stack == "intree" else None)
    assert {cell.stack for cell in expansion.cells} == {"cpu-opencl"}
    assert {left.reason for left in expansion.left_out} == {"needs a device"}
    assert len(expansion.left_out) == 4


def test_a_preset_replaces_what_it_names_and_nothing_else() -> None:
    preset = Preset("q", kernels=("rc",), stacks=("intree",), boots=2, timeouts=(("boot", 5.0),))
    matrix = with_preset(
        build(includes=(Include(Rule(kernel=("rc",)), 5, boots=9, timeouts=(("boot", 1.0),)),)), preset
    )
    assert matrix.preset == "q"
    assert [(cell.id, cell.boots, cell.timeouts.boot) for cell in expand(matrix).cells] == [
        ("debian-13/rc/intree/none", 2, 5.0),
        ("fedora-44/rc/intree/none", 2, 5.0),
    ]


NAMES = {
    "guest": ["debian-13", "fedora-44", "g3"],
    "kernel": ["lts", "rc", "k-3", "k.4"],
    "stack": ["cpu-opencl", "intree", "s3"],
    "device": ["none", "0000:01:00.0", "0000:02:00.0"],
}


def axis(name: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(NAMES[name]), min_size=1, unique=True).map(tuple)


def patterns(name: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from([*NAMES[name], "*", "k*", "?3", "0000:*"]), min_size=1, max_size=2).map(tuple)


RULES = st.builds(Rule, patterns("guest"), patterns("kernel"), patterns("stack"), patterns("device"))
EXCLUDES = st.builds(Exclude, RULES, st.just("why"), st.integers(1, 99))


@st.composite
def matrices(draw: st.DrawFn) -> Matrix:
    guests, stacks, devices = draw(axis("guest")), draw(axis("stack")), draw(axis("device"))

    def include(rule: Rule, boots: int | None) -> Include:
        def beyond(names: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
            literal = (name for name in names if not set(name) & set("*?[") and name not in known)
            return tuple(dict.fromkeys(literal))

        return Include(
            rule, 1, beyond(rule.guest, guests), beyond(rule.stack, stacks), beyond(rule.device, devices), boots=boots
        )

    return Matrix(
        kernels=tuple(kernel(name) for name in draw(axis("kernel"))),
        guests=guests,
        stacks=stacks,
        devices=devices,
        excludes=tuple(draw(st.lists(EXCLUDES, max_size=3))),
        includes=tuple(draw(st.lists(st.builds(include, RULES, st.none() | st.integers(1, 5)), max_size=3))),
    )


@given(matrices())
def test_expansion_is_deterministic_and_ids_are_unique(matrix: Matrix) -> None:
    first, second = expand(matrix), expand(matrix)
    assert first == second
    everything = [cell.id for cell in first.cells] + [left.cell_id for left in first.left_out]
    assert len(everything) == len(set(everything))
    assert len({cell.slug for cell in first.cells}) == len(first.cells)


@given(matrices())
def test_cells_and_what_is_left_out_partition_the_product_and_the_additions(matrix: Matrix) -> None:
    expansion = expand(matrix)
    cells = {cell.id for cell in expansion.cells}
    left_out = {left.cell_id for left in expansion.left_out}
    axes = {
        f"{guest}/{spec.name}/{stack}/{device}"
        for guest, spec, stack, device in product(matrix.guests, matrix.kernels, matrix.stacks, matrix.devices)
    }
    added = {
        f"{guest}/{spec.name}/{stack}/{device}"
        for rule in matrix.includes
        for guest, spec, stack, device in product(NAMES["guest"], matrix.kernels, NAMES["stack"], NAMES["device"])
        if rule.when.matches(guest, spec.name, stack, device)
        and guest in matrix.guests + rule.adds_guests
        and stack in matrix.stacks + rule.adds_stacks
        and device in matrix.devices + rule.adds_devices
    }
    assert not cells & left_out
    assert cells | left_out == axes | added
    for name in left_out:
        guest, kernel_name, stack, device = name.split("/")
        assert any(rule.when.matches(guest, kernel_name, stack, device) for rule in matrix.excludes)
    for cell in expansion.cells:
        assert not any(
            rule.when.matches(cell.guest, cell.kernel.name, cell.stack, cell.device) for rule in matrix.excludes
        )


@given(matrices())
def test_the_cells_of_a_kernel_stand_together_in_the_order_of_the_file(matrix: Matrix) -> None:
    runs = [name for name, _ in groupby(cell.kernel.name for cell in expand(matrix).cells)]
    assert runs == [spec.name for spec in matrix.kernels if spec.name in runs]


@given(matrices())
def test_without_rules_the_cells_are_the_product(matrix: Matrix) -> None:
    bare = replace(matrix, excludes=(), includes=())
    count = len(bare.kernels) * len(bare.guests) * len(bare.stacks) * len(bare.devices)
    assert len(expand(bare).cells) == count
    assert expand(bare).left_out == ()
