"""An examination that fails within Ray is told by what failed."""

from __future__ import annotations

import pytest
from ray.exceptions import RayTaskError

from coordinator.doctor_ray import why_it_failed
from shared_store.errors import StoreDownError


@pytest.mark.parametrize(
    ("cause", "what", "mend"),
    [
        (StoreDownError("it is off", where="sftp://far/x", mend="switch it on"), "it is off (sftp://far/x)", "switch"),
        (AttributeError("no attribute 'doors'"), "AttributeError: no attribute 'doors'", "on that machine itself"),
    ],
)
def test_the_error_itself_is_told_and_not_where_ray_ran_it(cause: Exception, what: str, mend: str) -> None:
    raised = RayTaskError("doctor@attic", "a traceback", cause).as_instanceof_cause()
    assert isinstance(raised, RayTaskError)
    failure, remedy = why_it_failed(raised)
    assert failure == what and mend in remedy
