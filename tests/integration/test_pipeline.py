"""Slides one after the other: resuming, what was prepared ahead, and another process's work."""

import numpy as np
import pytest
import small_encoders
from small_slides import section

from pathencoder.features.job import partial_path
from pathencoder.features.layouts import path_of
from pathencoder.features.provenance import Settings
from pathencoder.features.slide import (
    SlideTask,
    encode_prepared,
    prepare_slide,
    slide_to_file,
)
from pathencoder.features.store import read_features


def file_in(folder):
    return path_of(folder / "out", "s", "trident")


def encode_one(made, folder, settings=None, **options):
    encoder = small_encoders.shared("cnn")
    return slide_to_file(encoder, made.path, file_in(folder), settings or Settings(), **options)


def stop_after(count):
    def stop(done, total):
        if done == count:
            raise KeyboardInterrupt

    return stop


def test_rows_of_another_reader_are_not_resumed(slide, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        encode_one(slide(), tmp_path, Settings(batch_size=2), progress=stop_after(5))
    other = slide(reader="other 2.0", pixels=section(colour=(120, 80, 110)))
    seen = []
    outcome = encode_one(other, tmp_path, progress=lambda done, total: seen.append(done))
    assert seen[0] == 0
    assert outcome.new == outcome.rows
    assert "5 tiles that memory had read are read again with other 2.0" in outcome.notes
    found = read_features(outcome.file)
    assert found.attributes["reader"] == outcome.reader == "other 2.0"
    assert np.array_equal(found.rows, read_features(encode_one(other, tmp_path / "b").file).rows)


def test_a_finished_file_of_another_reader_is_kept_and_noted(slide, tmp_path):
    encode_one(slide(), tmp_path)
    picture = tmp_path / "s.jpg"
    outcome = encode_one(slide(reader="other 2.0"), tmp_path, picture=picture)
    assert (outcome.status, outcome.reader) == ("before", "memory")
    assert "its tiles were read with memory; other 2.0 opens it now" in outcome.notes


def test_a_slide_that_another_process_has_finished_meanwhile_is_done_before(slide, tmp_path):
    made, encoder = slide(), small_encoders.shared("cnn")
    file = file_in(tmp_path)
    prepared = prepare_slide([encoder], SlideTask(made.path, (file,), Settings()))
    encode_one(made, tmp_path)
    written = file.stat().st_mtime_ns
    made.reads = 0
    (outcome,) = encode_prepared([encoder], prepared)
    assert (outcome.status, made.reads, file.stat().st_mtime_ns) == ("before", 0, written)
    assert not partial_path(file).exists()
