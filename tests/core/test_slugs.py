"""The promises of workload slugs."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel_assets.core.slugs import BadWorkloadId, is_slug, workload_slug

PATTERN = re.compile(r"^[a-z0-9]+([._-][a-z0-9]+)*$")


@pytest.mark.parametrize("workload_id", ["router", "a", "tool-router.v2", "a_b-c.d", "0", "x" * 63])
def test_an_id_that_is_a_slug_stays_as_it_is(workload_id):
    assert workload_slug(workload_id) == workload_id


@pytest.mark.parametrize(
    ("workload_id", "start"),
    [
        ("Router", "router-"),
        ("my app/agent 7", "my-app-agent-7-"),
        ("Café crème", "cafe-creme-"),
        ("a--b", "a-b-"),
        ("-a-", "a-"),
        ("a|b", "a-b-"),
        ("../etc", "etc-"),
        ("a\nb", "a-b-"),
        ("a\n", "a-"),
        ("x" * 64, "x" * 54 + "-"),
    ],
)
def test_a_changed_id_gets_eight_hex_digits_of_its_hash(workload_id, start):
    assert re.fullmatch(re.escape(start) + "[0-9a-f]{8}", workload_slug(workload_id))


def test_the_hash_is_that_of_the_original_id():
    assert workload_slug("Router") == "router-065d8e6c"


def test_ids_that_differ_in_case_only_stay_two_workloads():
    assert len({workload_slug(name) for name in ("router", "Router", "ROUTER", "router ")}) == 4


@pytest.mark.parametrize("workload_id", ["", "   ", "日本語", "---", "!!", "x" * 513, None, 7, True, ["a"], {"a": 1}])
def test_an_id_no_slug_can_be_made_of_is_refused_with_the_reason(workload_id):
    with pytest.raises(BadWorkloadId, match="workload_id"):
        workload_slug(workload_id)


@given(st.text(max_size=600))
def test_whatever_the_id_the_slug_is_well_formed_and_always_the_same(workload_id):
    try:
        slug = workload_slug(workload_id)
    except BadWorkloadId:
        return
    assert PATTERN.fullmatch(slug) and len(slug) <= 63 and is_slug(slug)
    assert workload_slug(workload_id) == slug == workload_slug(slug)
