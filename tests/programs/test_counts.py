"""What is counted: nothing that a sender, a script or a process can name."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sieve_filter import errors, limits
from sieve_filter.programs import counts
from sieve_filter.programs.counts import Counts, Report

REPORTS = st.builds(
    Report,
    st.sampled_from(counts.OUTCOMES),
    st.sampled_from(["", counts.HIT, counts.MISS]),
    st.integers(0, limits.REPORTED_OCTETS),
    st.integers(0, limits.REPORTED_OCTETS),
)


@given(REPORTS)
def test_report_arrives_as_it_was_sent(report: Report) -> None:
    assert counts.unpack(counts.pack(report)) == report


@given(st.binary(max_size=2 * counts.SIZE) | st.binary(min_size=counts.SIZE, max_size=counts.SIZE))
@example(b"\xff" * counts.SIZE)
@example(b"\0" * 2 + b"\xff" * (counts.SIZE - 2))
def test_process_cannot_report_what_is_not_counted(octets: bytes) -> None:
    try:
        report = counts.unpack(octets)
    except ValueError:
        return
    assert report.outcome in counts.OUTCOMES
    assert max(report.octets_in, report.octets_out) <= limits.REPORTED_OCTETS


@given(st.lists(st.tuples(REPORTS, st.floats(0, 1e6))))
def test_counts_are_the_sums_and_have_the_same_names_from_the_beginning(reports: list[tuple[Report, float]]) -> None:
    made = Counts(1_000)
    names = made.shown().outcomes.keys()
    for report, seconds in reports:
        made.add(report, seconds)
    shown = made.shown()
    assert shown.outcomes.keys() == names == set(counts.OUTCOMES)
    assert sum(shown.outcomes.values()) == sum(shown.times) == len(reports)
    assert shown.octets_in == sum(report.octets_in for report, _ in reports)
    assert shown.since == 1_000


@pytest.mark.parametrize(("milliseconds", "place"), [(0.0, 0), (1.0, 0), (1.1, 1), (200_000.0, 16), (200_001.0, 17)])
def test_time_that_is_exactly_a_bound_is_within_it(milliseconds: float, place: int) -> None:
    made = Counts(0)
    made.add(Report(counts.DIED), milliseconds / 1_000)
    assert [index for index, count in enumerate(made.shown().times) if count] == [place]


def test_each_error_is_counted_by_its_name_or_as_an_internal_one() -> None:
    assert counts.refusal(errors.NoKeyError) == (counts.REFUSED, "no-key")
    assert counts.refusal(errors.LostKeyringError) == (counts.REFUSED, "lost-keyring")
    assert counts.refusal(errors.InternalError) == counts.refusal(errors.QuotaError) == (counts.REFUSED, "internal")
