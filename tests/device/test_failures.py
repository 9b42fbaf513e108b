"""Memory that runs out and a device that is lost, at every place that computes on the device.

Either the numbers are right in the end, or a sentence says what happened; what is there stays.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from shapely.geometry import box

import napari_dkan
from napari_dkan.errors import DkanError
from napari_dkan.inference.device_errors import DeviceError, DeviceFailure, lost_devices
from napari_dkan.inference.predict import create_empty_prediction
from napari_dkan.inference.prediction import Prediction
from napari_dkan.inference.predictor import Predictor
from napari_dkan.inference.target import Target, target_from_region
from napari_dkan.model import Checkpoint
from napari_dkan.slide.slide import Slide

from . import pretend_device
from .conftest import DEVICE, MPP, assert_close

PACKAGE = str(Path(napari_dkan.__file__).parent)
FULL = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 4.00 GiB"
LOST = "CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously reported"
Place = tuple[str, int]
# Every so many places, in another order for each kind of failure; 1 for all, which takes minutes.
STEP = int(os.environ.get("DEVICE_FAILURE_STEP", "13"))


def place_of_operation() -> Place | None:
    """File and line in the package that asks for an operation."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(PACKAGE):
            return frame.f_code.co_filename.removeprefix(PACKAGE), frame.f_lineno
        frame = frame.f_back
    return None  # in a thread of autograd


def list_places(work: Callable[[], object]) -> list[Place]:
    """The places that compute on the device during some work, in their order."""
    places: dict[Place, None] = {}
    pretend_device.before_operation.append(
        lambda operation: places.update({place_of_operation(): None})
    )
    work()
    pretend_device.before_operation.clear()
    return [place for place in places if place is not None]


def fail_at(place: Place, error: Callable[[], Exception], times: int | None) -> None:
    """Make operations at a place fail, the first ones or all."""
    left = [times]

    def fail(operation: object) -> None:
        if place_of_operation() == place and left[0] != 0:
            left[0] = None if left[0] is None else left[0] - 1
            raise error()

    pretend_device.before_operation[:] = [fail]


def map_target(slide: Slide, tissue) -> Target:
    target = target_from_region(tissue, 140.0, MPP, slide.width, slide.height)
    return target.take(np.arange(len(target))[:3])


def predict_until_failure(
    slide: Slide, checkpoint: Checkpoint, tissue, device: str
) -> tuple[Prediction | None, DkanError | None]:
    """What is predicted of a map, in two batches, and what ended it."""
    prediction = None
    try:
        predictor = Predictor(slide, checkpoint, MPP, tissue, device)
        predictor.batch_sizes.limit(2)
        target = map_target(slide, tissue)
        prediction, _ = create_empty_prediction(predictor, target, "given")
        for update in predictor.stream(target):
            prediction.apply_update(update)
    except DkanError as error:
        return prediction, error
    return prediction, None


@pytest.mark.parametrize("message", [FULL, LOST])
def test_a_map_survives_or_says_why(slide: Slide, ensemble: Checkpoint, tissue, message: str):
    tissue = tissue.intersection(box(500, 500, 900, 900))
    expected, _ = predict_until_failure(slide, ensemble, tissue, "cpu")
    places = list_places(lambda: predict_until_failure(slide, ensemble, tissue, DEVICE))
    is_full = message is FULL
    survived = set()
    for place in places[is_full::STEP]:
        fail_at(
            place,
            lambda: torch.OutOfMemoryError(FULL) if is_full else RuntimeError(LOST),
            times=1 if is_full else None,
        )
        found, error = predict_until_failure(slide, ensemble, tissue, DEVICE)
        if found is not None:
            done = found.predicted_mask
            assert_close(found.values[done], expected.values[done])
        if error is None:
            assert found.predicted_mask.all(), place
            survived.add(place[0].rpartition("/")[2])
            continue
        assert isinstance(error, DeviceError), (place, error)
        wanted = DeviceFailure.memory if is_full else DeviceFailure.lost
        assert error.failure is wanted and "choose the CPU" in str(error), place
        assert (DEVICE in lost_devices) != is_full
        lost_devices.clear()
    assert len(places) > 40
    if is_full and STEP == 1:
        assert survived >= {"dkan_network.py", "stain_encoder.py", "attention_blocks.py"}
