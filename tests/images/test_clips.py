"""Clips of moving digits: rules, laws of the directions, defects by name, and MNIST's files."""

from __future__ import annotations

import dataclasses
import gzip
import math
import struct

import numpy as np
import pytest

from regimes.errors import BadSource, ConfigError
from regimes.images.arrays import open_digits
from regimes.images.clips import ClipConfig, ClipSource, open_clips
from regimes.images.motions import DIRECTIONS, MotionConfig, draw_track
from regimes.images.sources import load_images, load_labels, open_source
from regimes.noise import keyed_generator


def tracks(count, **options):
    config = MotionConfig(**options)
    return config, [draw_track(config, keyed_generator("t", i)) for i in range(count)]


def steps_after_changes(found):
    """Displacements from the frame of a change to the next."""
    return [
        tuple(int(v) for v in t.places[c + 1] - t.places[c])
        for t in found
        for c in t.changes
        if c + 1 < len(t.places)
    ]


def near(share, p, count):
    return abs(share - p) < 4 * math.sqrt(p * (1 - p) / count) + 1e-9


def test_circle_alternates_centre_and_jump_in_all_directions_equally_often():
    config, found = tracks(400, motion="circle", frames=6)
    for track in found:
        assert track.changes == (0, 2, 4)
        assert (track.places[::2] == 8).all()
    jumps = steps_after_changes(found)
    assert len(jumps) == 1200
    for name, jump in zip(config.mode_names, config.displacements, strict=True):
        assert near(jumps.count(jump) / 1200, 1 / 8, 1200), name
        dx, dy = DIRECTIONS[name]
        assert np.sign(jump).tolist() == [dx, dy]


def test_diagonal_jumps_are_of_equal_length_unless_the_published_ones_are_asked_for():
    radii = {round(math.hypot(*d), 2) for d in MotionConfig(jump=4).displacements}
    assert radii == {4.0, 4.24}  # of whole pixels
    published = MotionConfig(jump=4, defects=("unequal-jumps",)).displacements
    assert {round(math.hypot(*d), 2) for d in published} == {4.0, 5.66}


def test_fewer_directions_and_a_preferred_one():
    config, found = tracks(600, motion="circle", directions=4, probability=0.7)
    assert config.mode_names == ("left", "down", "right", "up")
    jumps = steps_after_changes(found)
    assert near(jumps.count((-4, 0)) / 600, 0.7, 600)
    assert near(jumps.count((0, -4)) / 600, 0.1, 600)
    assert MotionConfig(directions=2).mode_names == ("down", "up")
    assert config.probabilities == pytest.approx((0.7, 0.1, 0.1, 0.1))


def test_horizontal_draws_a_direction_at_the_centre_and_turns_at_walls():
    config, found = tracks(400, motion="horizontal", frames=16, probability=0.9)
    for track in found:
        x = track.places[:, 0]
        assert (track.places[:, 1] == 8).all()
        assert x.min() >= 0
        assert x.max() <= 16
        for t in track.changes:
            before, now = x[t - 1], x[t]
            assert (before < 8 <= now) or (before > 8 >= now)
            assert t - 1 not in track.changes
    moves = steps_after_changes(found)
    assert set(moves) == set(config.displacements) == {(2, 0), (-2, 0)}
    assert near(moves.count((2, 0)) / len(moves), 0.9, len(moves))


def test_a_reversed_clip_ends_behind_a_change_whose_law_is_the_one_asked_for():
    _, found = tracks(400, motion="horizontal", frames=16, probability=0.9, reverse=True)
    assert all(13 in t.changes for t in found)
    right = [int(t.places[14, 0] > t.places[13, 0]) for t in found]
    assert near(np.mean(right), 0.9, 400)


def test_a_probability_of_zero_is_zero_unless_the_defect_is_asked_for():
    options = {"motion": "horizontal", "frames": 12, "probability": 0.0}
    assert (2, 0) not in steps_after_changes(tracks(100, **options)[1])
    config, found = tracks(300, **options, defects=("zero-is-unset",))
    moves = steps_after_changes(found)
    assert near(moves.count((2, 0)) / len(moves), 0.5, len(moves))
    assert config.probabilities == (0.5, 0.5)
    # After a reversal 1 - 1 is what is taken for "not given", and 0 is not.
    turned = {"motion": "horizontal", "frames": 12, "reverse": True, "defects": ("zero-is-unset",)}
    right = [t.places[10, 0] > t.places[9, 0] for t in tracks(300, **turned, probability=1.0)[1]]
    assert near(np.mean(right), 0.5, 300)
    assert not any(
        t.places[10, 0] > t.places[9, 0] for t in tracks(100, **turned, probability=0.0)[1]
    )
    laws = [MotionConfig(**turned, probability=p).probabilities for p in (0.0, 1.0)]
    assert laws == [(0.0, 1.0), (0.5, 0.5)]


def test_free_digits_bounce_and_the_published_deterministic_bounce_is_not_deterministic():
    _, found = tracks(200, motion="free", frames=20, deterministic=True)
    assert max(t.places.max() for t in found) == 16
    assert min(t.places.min() for t in found) == 0
    for track in found:  # nothing is drawn after the first frame: speeds keep their size
        moves = np.abs(np.diff(track.places, axis=0)).max(0)
        free = [t for t in range(19) if t not in track.changes and t + 1 not in track.changes]
        assert all((np.abs(track.places[t + 1] - track.places[t]) == moves).all() for t in free)
    _, redrawn = tracks(
        200, motion="free", frames=20, deterministic=True, defects=("redrawn-bounce",)
    )
    sizes = {
        tuple(np.abs(t.places[c + 1] - t.places[c])) for t in redrawn for c in t.changes if c < 19
    }
    assert len(sizes) > 15
    _, short = tracks(200, motion="free", frames=20, defects=("short-wall",))
    assert max(t.places.max() for t in short) == 15


def test_clips_are_determined_by_seed_and_number_and_show_the_digit_where_it_is():
    config = ClipConfig(clips=6, frames=4)
    one, two = ClipSource(config), ClipSource(config)
    last = two.clip(5).frames
    assert (one.clip(0).frames == two.clip(0).frames).all()
    assert (one.clip(5).frames == last).all()
    assert not (ClipSource(ClipConfig(clips=6, frames=4, seed=1)).clip(5).frames == last).all()
    clip = one.clip(2)
    (x, y), digit = clip.tracks[0].places[1], clip.frames[0, 8:24, 8:24]
    assert (clip.frames[1, y : y + 16, x : x + 16] == digit).all()
    assert clip.frames[1].sum() == digit.sum(dtype=int)


def test_windows_are_all_consecutive_frames_or_those_behind_a_change():
    source = open_clips("clips:horizontal,clips=5,frames=8,window=3,canvas=16,digit=8")
    assert len(source.ids) == 5 * 6
    assert source.ids[7] == "clip-000001-frame-001"
    frames = source.clip(1).frames
    assert (source.read(7) == frames[1:4].transpose(1, 2, 0)).all()
    some = open_clips(
        "clips:horizontal,clips=40,frames=12,window=3,windows=changes,canvas=16,digit=8"
    )
    assert len({i[:11] for i in some.ids}) == len(some.ids) > 30
    for name in some.ids:
        clip, start = int(name[5:11]), int(name[-3:])
        assert start + 1 in some.clip(clip).tracks[0].changes


def test_clips_are_a_source_of_images_like_any_other():
    source = open_source("clips:middle,clips=30,frames=1,keep=3+7")
    ids, images, _ = load_images(source)
    assert images.shape == (30, 32, 32, 1)
    assert set(load_labels(source, ids)) == {3, 7}
    assert (images[:, :8] == 0).all()
    held = ClipSource(ClipConfig(motion="middle", part="heldout", frames=1))
    assert held.fingerprint != source.fingerprint
    with pytest.raises(BadSource, match="windows of frames are not resized"):
        open_clips("clips:circle,window=2").read(0, image_size=8)


def test_held_out_digits_are_in_no_training_clip():
    parts = {
        p: ClipSource(ClipConfig(part=p, digit=8, canvas=16, jump=3)) for p in ("train", "heldout")
    }
    train, held = ({g.tobytes() for g in s._glyphs} for s in parts.values())
    assert len(train) + len(held) <= 1797
    assert not train & held


def test_digits_add_up_to_white_and_have_no_single_label():
    config = ClipConfig(motion="middle", num_digits=2, frames=1, clips=20, keep=(1,))
    source, alone = (ClipSource(c) for c in (config, dataclasses.replace(config, num_digits=1)))
    assert source.labels is None
    assert set(alone.labels) == {1}
    glyphs = source._glyphs
    sums = {(a + b).clip(0, 255).astype(np.uint8).tobytes() for a in glyphs for b in glyphs}
    assert max(int((a + b).max()) for a in glyphs[:9] for b in glyphs[:9]) > 255
    for number in range(20):
        assert len(source.clip(number).tracks) == 2
        assert source.clip(number).frames[0, 8:24, 8:24].tobytes() in sums


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("clips:spiral", "motion: expected one of middle, circle"),
        ("clips:circle,jump=9", "leaves the canvas; expected at most 8"),
        ("clips:circle,directions=3", "directions: expected 8, 4 or 2"),
        ("clips:circle,speed=3", "expected NAME=VALUE"),
        ("clips:circle,jump=x", "expected jump as int"),
        ("clips:circle,window=3", "window: expected at most the 2 frames"),
        ("clips:circle,windows=changes", "changes needs a window of at least 2"),
        ("clips:horizontal,probability=2", "probability: expected a number in"),
        ("clips:circle,defects=none", "defects: expected some of unequal-jumps"),
        (
            "clips:horizontal,jump=3",
            "jump: of motion circle, and the motion is horizontal; leave it out, at 4",
        ),
        ("clips:circle,top_speed=3", "top_speed: of motion free"),
        ("clips:free,probability=.5", "probability: of motion circle or horizontal"),
        ("clips:circle,defects=short-wall", "short-wall: of motion horizontal or free"),
        ("clips:free,defects=redrawn-bounce", "redrawn-bounce: of deterministic bounces"),
    ],
)
def test_clips_that_cannot_be_made_are_refused(spec, message):
    with pytest.raises(ConfigError, match=message):
        open_clips(spec)


def write_idx(path, values, opener=open):
    with opener(path, "wb") as file:
        file.write(struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape))
        file.write(values.tobytes())


@pytest.fixture
def mnist(tmp_path):
    digits = open_digits()
    images = np.stack([digits.read(i)[:, :, 0] for i in range(40)]).repeat(2, 1).repeat(2, 2)
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", images, gzip.open)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.array(digits.labels[:40], np.uint8))
    write_idx(tmp_path / "t10k-images.idx3-ubyte", images[:5])
    return tmp_path, images, digits.labels[:40]


def test_mnists_files_are_a_source_with_labels_and_give_the_digits_of_clips(mnist):
    folder, images, labels = mnist
    source = open_source(str(folder))
    assert (load_images(source)[1][..., 0] == images).all()
    assert source.labels == labels
    assert len(open_source(f"{folder}#test").ids) == 5
    assert open_source(str(folder / "t10k-images.idx3-ubyte")).labels is None
    clips = open_clips(f"clips:middle,frames=1,clips=3,digits={folder}")
    assert any(
        (clips.read(0)[8:24, 8:24, 0] == image).all() for image in images
    )  # 16 pixels as they are


def test_a_part_that_holds_no_digit_is_named(mnist):
    folder, images, labels = mnist
    write_idx(folder / "train-images-idx3-ubyte.gz", images[:3], gzip.open)
    write_idx(folder / "train-labels-idx1-ubyte", np.array(labels[:3], np.uint8))
    with pytest.raises(BadSource, match="no digit of any class in part heldout"):
        open_clips(f"clips:circle,part=heldout,digits={folder}")
    with pytest.raises(BadSource, match="no digit of 8\\+9 in part all"):
        open_clips(f"clips:circle,keep=8+9,digits={folder}")


def test_damaged_idx_files_are_refused_by_name(mnist):
    folder, images, _ = mnist
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadSource, match=r"train-images-idx3-ubyte.gz: "):
        open_source(str(folder))
    write_idx(path, images.astype(np.uint8)[:, :, 0], gzip.open)
    with pytest.raises(BadSource, match="expected idx with 3 dimensions"):
        open_source(str(folder))
    with gzip.open(path, "wb") as file:
        file.write(struct.pack(">HBB3I", 0, 8, 3, 2**20, 2**10, 2**10))
    with pytest.raises(BadSource, match="its header says"):
        open_source(str(folder))
    with pytest.raises(BadSource, match="digits: expected the word digits"):
        open_clips(f"clips:circle,digits={folder / 'nothing'}")
