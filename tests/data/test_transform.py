"""The device's part of a batch: what is done, in what order, and what is refused."""

from typing import get_args

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax.config import AugmentName, Config, ConfigError, Data, Model
from csbp_jax.data.device import augment, encode, mix, resize, transform

KEY = jax.random.key(0)
EVENTS = ("event_drop", "flip", "crop", "roll", "rotate", "shear", "nda", "cutout", "batch_crop_flip")


def config(shape=(16, 16, 2), time_steps=6, **data):
    return Config(data=Data(**data), model=Model(input_shape=shape, time_steps=time_steps, classes=10))


def counts(dtype=np.uint8, shape=(8, 6, 16, 16, 2)):
    rng = np.random.default_rng(0)
    return {"x": rng.poisson(1.0, shape).astype(dtype), "y": np.arange(shape[0], dtype=np.int32)}


def pictures(channels=3):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (8, 1, 16, 16, channels), np.uint8)
    return {"x": x, "y": np.arange(8, dtype=np.int32)}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_counts_are_cast_and_no_more(dtype):
    batch = counts(dtype) | {"mask": np.arange(8) < 5}
    for f in transform.make(config(), events=True):
        out = f(KEY, batch)
        assert out["x"].dtype == jnp.float32
        np.testing.assert_array_equal(out["x"], batch["x"])
        chex.assert_trees_all_equal(out["y"], batch["y"])
        chex.assert_trees_all_equal(out["mask"], batch["mask"])


def test_pictures_become_brightness():
    batch = pictures()
    for f in transform.make(config(), events=False):
        out = f(KEY, batch)
        assert out["x"].dtype == jnp.float32
        np.testing.assert_allclose(out["x"], batch["x"] / 255, rtol=1e-6)
    deep = {"x": np.array([0, 65535], np.uint16).reshape(2, 1, 1, 1, 1)}
    np.testing.assert_array_equal(f(KEY, deep)["x"].ravel(), [0, 1])
    ready = {"x": np.array([0.25, 1], np.float32).reshape(2, 1, 1, 1, 1)}
    np.testing.assert_array_equal(f(KEY, ready)["x"], ready["x"])


@pytest.mark.parametrize(
    ("name", "white"),
    [
        ("mnist", [2.8215]),
        ("fashion_mnist", [2.0227]),
        ("cifar10", [2.5141, 2.5968, 2.7538]),
        ("cifar100", [1.8426, 2.0012, 2.0254]),
        ("imagenet", [2.2489, 2.4286, 2.64]),
    ],
)
def test_standard_normalisation_is_the_published_one(name, white):
    train, evaluate = transform.make(config(name=name, normalise="standard"), events=False)
    batch = {"x": np.full((2, 1, 4, 4, len(white)), 255, np.uint8), "y": np.zeros(2, np.int32)}
    for f in (train, evaluate):
        np.testing.assert_allclose(f(KEY, batch)["x"][0, 0, 0, 0], white, atol=2e-4)


def test_frames_by_their_largest_count():
    batch = counts()
    batch["x"][:, 2] = 0
    batch["x"][3, 1, :, :, 0] *= 100
    out = np.asarray(transform.make(config(normalise="max"), events=True)[1](KEY, batch)["x"])
    largest = out.max((2, 3, 4))
    np.testing.assert_array_equal(largest, np.arange(6)[None] != np.full((8, 1), 2))
    np.testing.assert_allclose(out[3, 1], batch["x"][3, 1] / batch["x"][3, 1].max(), rtol=1e-6)


@pytest.mark.parametrize("method", ["nearest", "bilinear", "antialias"])
def test_resized_before_the_largest_count_is_taken(method):
    f = transform.make(config(size=(6, 5), resize=method, normalise="max"), events=True)[1]
    batch = counts()
    out = f(KEY, batch)["x"]
    small = resize.METHODS[method](jnp.float32(batch["x"]), (6, 5))
    np.testing.assert_allclose(out, small / small.max((2, 3, 4), keepdims=True), rtol=1e-6)


def test_a_size_alone_is_the_sources_business():
    assert transform.make(config(size=(6, 6)), events=True)[1](KEY, counts())["x"].shape == (8, 6, 16, 16, 2)


@pytest.mark.parametrize("name", EVENTS)
def test_each_augmentation_of_events_runs_on_training_batches_only(name):
    train, evaluate = transform.make(config(augment=(name,)), events=True)
    batch = counts()
    f = jax.jit(train)
    outs = [np.asarray(f(key, batch)["x"]) for key in jax.random.split(KEY, 8)]
    assert any(not np.array_equal(out, batch["x"]) for out in outs)
    np.testing.assert_array_equal(outs[0], f(jax.random.split(KEY, 8)[0], batch)["x"])
    np.testing.assert_array_equal(evaluate(KEY, batch)["x"], batch["x"])


def test_augmentations_run_in_their_order():
    # Rolled round, zeros from the crop come to lie between ones; cropped last, they lie at an edge.
    batch = {"x": np.ones((64, 1, 16, 16, 2), np.uint8), "y": np.zeros(64, np.int32)}
    between = {}
    for order in (("roll", "crop"), ("crop", "roll")):
        column = np.asarray(transform.make(config(augment=order), events=True)[0](KEY, batch)["x"][:, 0, :, 8, 0])
        between[order] = int(((column[:, 0] == 1) & (column[:, -1] == 1) & (column == 0).any(1)).sum())
    assert between["roll", "crop"] == 0 < between["crop", "roll"]


def test_event_drop_sees_whole_counts():
    train, _ = transform.make(config(augment=("event_drop",), normalise="max"), events=True)
    keys = jax.random.split(jax.random.split(KEY, 2)[0], 8)
    thinned = jax.jit(jax.vmap(augment.event_drop))(keys, jnp.float32(counts()["x"]))
    largest = thinned.max((2, 3, 4), keepdims=True)
    np.testing.assert_allclose(jax.jit(train)(KEY, counts())["x"], thinned / jnp.maximum(largest, 1), rtol=1e-6)


def test_a_choice_of_frames_for_training_only():
    train, evaluate = transform.make(config(frames=4), events=True)
    batch = counts()
    out = train(KEY, batch)["x"]
    assert out.shape == (8, 4, 16, 16, 2) and evaluate(KEY, batch)["x"].shape == (8, 6, 16, 16, 2)
    places = [[np.array_equal(out[:, i], batch["x"][:, j]) for j in range(6)].index(True) for i in range(4)]
    assert places == sorted(places)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
@pytest.mark.parametrize("events", [True, False])
def test_mixing_gives_probabilities_in_training_only(name, events):
    train, evaluate = transform.make(config(augment=("flip", name)), events=events)
    batch = counts() if events else pictures()
    out = jax.jit(train)(KEY, batch)
    chex.assert_shape(out["y"], (8, 10))
    np.testing.assert_allclose(out["y"].sum(1), 1, atol=1e-6)
    chex.assert_trees_all_equal(evaluate(KEY, batch)["y"], batch["y"])


def test_what_the_source_has_done_is_not_done_again():
    names = ("crop", "flip", "cutout", "autoaugment")
    train, evaluate = transform.make(config(augment=names), events=False)
    chex.assert_trees_all_equal(train(KEY, pictures()), evaluate(KEY, pictures()))


@pytest.mark.parametrize("name", ["rate", "latency"])
def test_brightness_is_mixed_and_then_encoded(name):
    train, evaluate = transform.make(config(encode=name, augment=("mixup",)), events=False)
    for f in (train, evaluate):
        x = f(KEY, pictures())["x"]
        assert x.shape == (8, 6, 16, 16, 3) and x.dtype == jnp.float32 and set(np.unique(x)) == {0, 1}
    brightness = pictures()["x"].astype(np.float32) / 255
    chex.assert_trees_all_equal(x, getattr(encode, name)(KEY, brightness, 6))
    encode_key, mix_key = jax.random.split(KEY, 2)
    mixed, _ = mix.mixup(mix_key, brightness, mix.probabilities(jnp.arange(8), 10))
    chex.assert_trees_all_equal(train(KEY, pictures())["x"], getattr(encode, name)(encode_key, mixed, 6))


def test_units_without_height_and_width():
    shape = (8, 6, 700)
    train, evaluate = transform.make(config(shape=(700,), augment=("mixup",), normalise="max", frames=3), events=True)
    batch = counts(shape=shape)
    assert train(KEY, batch)["x"].shape == (8, 3, 700) and evaluate(KEY, batch)["x"].shape == shape


@pytest.mark.parametrize("events", [True, False])
def test_one_compilation_and_no_way_back_to_the_host(events):
    everything = (*EVENTS, "mixup", "cutmix") if events else ("crop", "flip", "cutout", "mixup", "cutmix")
    options = (
        {"normalise": "max", "size": (12, 12), "resize": "bilinear", "frames": 4} if events else {"encode": "rate"}
    )
    train, evaluate = transform.make(config(augment=everything, **options), events=events)
    batch = counts() if events else pictures()
    for f in (train, evaluate):
        assert "callback" not in str(jax.make_jaxpr(f)(KEY, batch))
        f = jax.jit(chex.assert_max_traces(f, 1))
        for key in jax.random.split(KEY, 3):
            out = f(key, batch)
            assert np.all(np.isfinite(out["x"]))


PICTURES, FRAMES, UNITS = "still images", "frames of events", "events without height and width"
BRIGHTNESS = r"data.encode=rate, which needs brightness in \[0, 1\]"


def refused(field, value, kind, allowed):
    return f"^data.{field}: {value} is not possible for {kind}; allowed are {allowed}$"


@pytest.mark.parametrize(
    ("events", "options", "message"),
    [
        (
            False,
            {"augment": ("flip", "roll")},
            refused("augment", "roll", PICTURES, "crop, flip, cutout, autoaugment, resized_crop, mixup, cutmix"),
        ),
        (
            True,
            {"augment": ("autoaugment", "resized_crop")},
            refused("augment", "autoaugment, resized_crop", FRAMES, "event_drop, flip, .*, mixup, cutmix"),
        ),
        (True, {"shape": (700,), "augment": ("flip",)}, refused("augment", "flip", UNITS, "mixup")),
        (True, {"shape": (700,), "resize": "nearest"}, refused("resize", "nearest", UNITS, "events")),
        (False, {"resize": "nearest"}, refused("resize", "nearest", PICTURES, "events")),
        (True, {"encode": "rate"}, refused("encode", "rate", FRAMES, "direct")),
        (True, {"normalise": "standard"}, refused("normalise", "standard", FRAMES, "none, max")),
        (False, {"normalise": "max"}, refused("normalise", "max", PICTURES, "none, standard")),
        (
            False,
            {"name": "mnist", "normalise": "standard", "encode": "rate"},
            refused("normalise", "standard", BRIGHTNESS, "none"),
        ),
        (
            False,
            {"normalise": "standard"},
            r"^data.normalise: mean and standard deviation of digits are not known, only those of mnist, .*, imagenet$",
        ),
        (False, {"frames": 3}, r"^data.frames: 3 is not possible for still images; allowed is None$"),
        (True, {"frames": 7}, r"^data.frames: 7 is not possible; allowed is up to model.time_steps \(6\)$"),
        (True, {"augment": ("flip", "event_drop")}, r"^data.augment: event_drop .* must stand first$"),
        (True, {"resize": "nearest"}, r"^data.size: None, but data.resize is nearest; give a height and width$"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(events, options, message):
    with pytest.raises(ConfigError, match=message) as error:
        transform.make(config(**options), events=events)
    assert "\n" not in str(error.value)


def test_every_name_of_the_config_does_something():
    assert {*transform._BY_SOURCE, *transform._EVENTS, *transform._MIX} == set(get_args(AugmentName))
