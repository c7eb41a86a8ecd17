"""`stream` is lazy, in order and in bounded memory, and leaves no thread behind."""

import itertools
import threading
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image
from small_encoders import picture, shared

from pathencoder import images, runtime
from pathencoder.errors import ConfigError, ImageError


def decoders():
    return [t for t in threading.enumerate() if t.name.startswith("pathencoder-decode")]


@pytest.fixture(autouse=True)
def no_thread_left():
    yield
    assert decoders() == []


def test_rows_and_keys_are_those_of_encode(tmp_path):
    for i in range(9):
        Image.fromarray(picture(i)).save(tmp_path / f"{i}.png")
    rows, keys = shared().encode(tmp_path, return_keys=True)
    streamed = list(shared().stream(tmp_path, batch_size=4))
    assert [k for k, _ in streamed] == keys == [f"{i}.png" for i in range(9)]
    np.testing.assert_array_equal([row for _, row in streamed], rows)


def test_an_endless_iterator_is_advanced_only_as_needed():
    drawn = itertools.count()
    stream = shared().stream((picture(next(drawn)) for _ in itertools.repeat(0)), batch_size=4)
    first = list(itertools.islice(stream, 5))
    assert [k for k, _ in first] == [0, 1, 2, 3, 4]
    assert next(drawn) <= 12
    stream.close()


@pytest.mark.parametrize("many", [list, np.array, tuple])
def test_scales_beyond_the_images_of_a_generator_are_refused(many):
    scales = many([0.5] * 5)
    with pytest.raises(ConfigError, match="mpp holds 5 values for 3 images"):
        shared().encode((picture(i) for i in range(3)), mpp=scales)
    with pytest.raises(ConfigError, match="mpp holds 5 values for 3 images"):
        list(shared().stream((picture(i) for i in range(3)), mpp=scales))
    for exact in (scales[:3], itertools.repeat(0.5), iter(scales)):
        assert len(shared().encode((picture(i) for i in range(3)), mpp=exact)) == 3


def test_rows_before_a_bad_image_come_before_its_error():
    stream = shared().stream([picture(0), picture(1), np.zeros(3), picture(2)])
    assert [key for key, _ in itertools.islice(stream, 2)] == [0, 1]
    with pytest.raises(ImageError, match=r"images\[2\]"):
        next(stream)


def test_a_bad_image_leaves_its_neighbours_rows_alone():
    bad = np.full((8, 8, 3), np.nan)
    with pytest.warns(UserWarning, match="2 of 4"):
        rows = [
            row for _, row in shared().stream([picture(0), bad, bad, picture(1)], on_error="nan")
        ]
    assert [bool(np.isnan(r).all()) for r in rows] == [False, True, True, False]
    np.testing.assert_array_equal([rows[0], rows[3]], shared().encode([picture(0), picture(1)]))


def test_an_error_of_the_callers_iterator_comes_through():
    def broken():
        yield picture()
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="the disk went away"):
        list(shared().stream(broken()))


def test_slow_and_quick_images_keep_their_order(tmp_path):
    big, small = picture(0, 2000, 2000), picture(1)
    rows = shared().encode([big, small] * 4, workers=4)
    np.testing.assert_array_equal(rows[0::2], np.repeat(rows[:1], 4, axis=0))
    np.testing.assert_array_equal(rows[1::2], np.repeat(shared().encode(small), 4, axis=0))


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, MemoryError])
def test_an_interrupt_in_the_network_ends_at_once_and_leaves_no_thread(monkeypatch, interrupt):
    def interrupted(self, pixels):
        raise interrupt

    monkeypatch.setattr(runtime.Runner, "_forward", interrupted)
    with pytest.raises(interrupt):
        shared().encode((picture(i) for i in itertools.count()), batch_size=8)
    assert decoders() == []


def test_a_stream_that_is_dropped_halfway_leaves_no_thread():
    stream = shared().stream([picture(i) for i in range(20)], batch_size=4)
    next(stream)
    del stream
    assert decoders() == []


def test_memory_stays_flat():
    def peak(count):
        tracemalloc.start()
        for _ in shared().stream((picture(i, 256, 256) for i in range(count)), batch_size=8):
            pass
        return tracemalloc.get_traced_memory()[1], tracemalloc.stop()

    peak(8)
    short, long = peak(24)[0], peak(160)[0]
    assert long < 1.5 * short


def test_settings_are_checked_before_the_first_image_is_drawn():
    drawn = []
    with pytest.raises(Exception, match="output='nothing'"):
        shared().stream((drawn.append(i) for i in range(3)), output="nothing")
    assert drawn == []


def test_inference_mode_does_not_leak_into_the_consumer():
    for _, row in shared().stream([picture(i) for i in range(3)], batch_size=1):
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()
        row += 1  # the caller may write into a row


def test_an_unexpected_error_of_a_reader_costs_only_its_image():
    def broken():
        raise ZeroDivisionError("odd file")

    items = [
        images.Item(0, "good", lambda: picture(0)),
        images.Item(1, "odd.tif", broken),
        images.Item(2, "good", lambda: picture(2)),
    ]
    found = list(shared().results(items))
    assert [r.error is None for r in found] == [True, False, True]
    assert "odd.tif: cannot be decoded (ZeroDivisionError: odd file)" in str(found[1].error)
