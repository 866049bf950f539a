from __future__ import annotations

from workers.story import METRICS_COLUMNS, Pace, Story

METRICS = {"log_loss": 0.5, "accuracy": 0.75, "mean_ap": 0.6, "top_class_ap": 0.55}


def epoch(story: Story, mean_ap: float) -> bool:
    return story.end_epoch(rate=0.1, loss=1 / 3, images=30, metrics=METRICS | {"mean_ap": mean_ap})


def test_the_best_epoch_is_the_first_of_the_highest() -> None:
    story = Story()
    assert [epoch(story, value) for value in (0.5, 0.7, 0.7, 0.6)] == [True, True, False, False]
    assert (story.epoch, story.best_epoch, story.best_mean_ap) == (4, 2, 0.7)


def test_a_fold_is_finished_by_its_epochs_or_by_patience() -> None:
    story = Story()
    for value in (0.5, 0.4, 0.3):
        epoch(story, value)
    assert story.is_finished(epochs=3, patience=None)
    assert story.is_finished(epochs=10, patience=2)
    assert not story.is_finished(epochs=10, patience=3)
    assert not story.is_finished(epochs=10, patience=None)
    assert not Story().is_finished(epochs=1, patience=1)


def test_metrics_are_written_to_their_last_digit() -> None:
    story = Story(seconds=2.0)
    epoch(story, 0.6)
    header, row = story.metrics_csv().decode().splitlines()
    assert header.split(",") == list(METRICS_COLUMNS)
    assert row == "1,0.1,0.3333333333333333,0.5,0.75,0.6,0.55,2.0,15.0"
    assert Story().metrics_csv().decode() == header + "\n"
    assert story.log_text() == b"epoch 1: loss 0.3333, validation loss 0.5000, accuracy 0.7500, mAP 0.6000\n"


def test_pace_goes_by_this_attempt_alone() -> None:
    pace = Pace(began_at=100.0, began_step=50)
    assert pace.measured(100.0, 50, 90) == (None, None)
    assert pace.measured(110.0, 70, 90) == (2.0, 10.0)
    assert pace.reported_at == 110.0
