"""A message must not get dearer unnoticed: its instructions are counted, on any machine alike."""

import pytest

from tests.performance.instructions import Bounds, count, here, is_countable, load_bounds


@pytest.mark.skipif(
    not is_countable(), reason="valgrind is not installed (Debian, Ubuntu: apt install valgrind)"
)
def test_message_costs_no_more_instructions_than_its_bound() -> None:
    limit = load_bounds().limit(here())
    counted = count()
    if limit is None:
        pytest.skip(
            f"{counted:,} instructions a message, and no bound for {here()}: make one with "
            "`python -m tests.performance.instructions --set`"
        )
    assert counted <= limit, (
        f"{counted:,} instructions a message, {limit:,.0f} allowed. If that is worth it, set the "
        "bound anew: `python -m tests.performance.instructions --set`"
    )


def test_bound_allows_its_margin_and_knows_no_other_build() -> None:
    bounds = Bounds(margin=0.08, instructions_a_message={"this": 1000})
    assert bounds.limit("this") == pytest.approx(1080)
    assert bounds.limit("that") is None
