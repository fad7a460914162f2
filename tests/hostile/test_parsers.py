"""Whatever bytes come from outside, a parser takes them or names one of its own errors; 8,000 spoiled inputs each."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hostile.campaign import BLOCK, campaign
from tests.hostile.parsers import PARSERS, run

INPUTS = 8_000


@pytest.mark.parametrize("name", PARSERS)
def test_valid_input_is_taken(name: str) -> None:
    for sample in PARSERS[name].samples:
        assert run(PARSERS[name], sample) is None


def test_no_spoiled_input_raises_what_a_parser_does_not_name() -> None:
    work = [(name, block) for name in PARSERS for block in range(INPUTS // BLOCK)]
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in PARSERS}
    findings = []
    for (name, _), block in campaign(work):
        outcomes[name] += block.outcomes
        findings += block.findings
    assert findings == []
    for name, counts in outcomes.items():
        assert counts.total() == INPUTS
        # Spoiled too much, nothing would get past the first check; too little, nothing would be tried.
        assert counts["taken"] < counts.total() or not PARSERS[name].errors
        assert counts["taken"] > 0


@pytest.mark.parametrize("name", PARSERS)
def test_the_same_drawn_by_hypothesis_which_makes_a_finding_small(name: str) -> None:
    parser = PARSERS[name]

    @settings(max_examples=25)
    @given(rng=st.randoms(use_true_random=False), sample=st.sampled_from(parser.samples))
    def check(rng: object, sample: bytes) -> None:
        run(parser, parser.mutate(rng, sample))  # type: ignore[arg-type]  # hypothesis' own Random

    check()
