"""Settings that make bits repeat hold while they are asked for, and no longer."""

from __future__ import annotations

import torch

from workers.repeatable import repeatable, whole_float32


def settings() -> tuple[object, ...]:
    return torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.allow_tf32


def test_what_is_set_for_a_fold_is_as_before_after_it() -> None:
    before = settings()
    with repeatable("cpu", 1):
        assert settings() == (1, True, False)
    assert settings() == before


def test_float32_has_all_its_bits_within_and_what_it_had_before_after_it() -> None:
    with whole_float32():
        with whole_float32():
            assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32
