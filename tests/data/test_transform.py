"""Transforms on the device: which are applied, in which order, and which options are rejected."""

from typing import Any, get_args

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax.config import AugmentName, Config, ConfigError, Data, Model
from csbp_jax.data.device import augment, encode, mix, resize, transform
from tests.support.rows import full_but

KEY = jax.random.key(0)
EVENTS = ("event_drop", "flip", "crop", "roll", "rotate", "shear", "nda", "cutout", "batch_crop_flip")


# With the divisors of 255, by which a spike's time falls on a boundary.
STEPS = (1, 2, 3, 5, 7, 10, 15, 17, 34, 51, 64)


def config(shape=(16, 16, 2), time_steps=6, **data):
    return Config(data=Data(**data), model=Model(input_shape=shape, time_steps=time_steps, classes=10))


def counts(dtype=np.uint8, shape=(8, 6, 16, 16, 2)):
    rng = np.random.default_rng(0)
    return {"x": rng.poisson(1.0, shape).astype(dtype), "y": np.arange(shape[0], dtype=np.int32)}


def images(channels=3):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (8, 1, 16, 16, channels), np.uint8)
    return {"x": x, "y": np.arange(8, dtype=np.int32)}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_counts_are_only_cast(dtype):
    batch = counts(dtype) | {"mask": np.arange(8) < 5}
    for f in transform.make(config(size=(6, 6)), events=True):  # a size without a method is left to the source
        out = f(KEY, batch)
        assert out["x"].dtype == jnp.float32
        np.testing.assert_array_equal(out["x"], batch["x"])
        chex.assert_trees_all_equal(out["y"], batch["y"])
        chex.assert_trees_all_equal(out["mask"], batch["mask"])


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
def test_images_are_scaled_to_brightness(dtype, white):
    x = np.linspace(0, white, 32).astype(dtype).reshape(2, 1, 4, 4, 1)
    for f in transform.make(config(), events=False):
        out = f(KEY, {"x": jnp.asarray(x)})["x"]
        assert out.dtype == jnp.float32
        np.testing.assert_allclose(out, x / white, rtol=1e-6)


def test_latency_of_each_level_is_that_of_integers_eagerly_and_compiled():
    """Rounding of k / 255 moves no spike, such as that of white from step 0 to a step -1."""
    level = np.arange(256)
    batch: dict[str, Any] = {"x": level.astype(np.uint8).reshape(256, 1, 1, 1, 1), "y": np.zeros(256, np.int32)}
    encoders = {T: transform.make(config(time_steps=T, encode="latency"), events=False)[1] for T in STEPS}

    def spikes(batch):
        return {T: encoder(KEY, batch)["x"].reshape(256, T) for T, encoder in encoders.items()}

    eagerly = {T: encoders[T](KEY, batch)["x"].reshape(256, T) for T in (1, 15, 51)}  # each T is programs of its own
    for actual in (eagerly, jax.jit(spikes)(batch)):
        for T in actual:
            expected = np.arange(T) == ((255 - level) * T // 255)[:, None]
            np.testing.assert_array_equal(actual[T], expected, err_msg=f"T = {T}")


@pytest.mark.parametrize("dtype", [np.int8, np.int64])
def test_integers_with_a_sign_are_no_brightness(dtype):
    batch: dict[str, Any] = {"x": np.full((2, 1, 4, 4, 1), 100, dtype), "y": np.zeros(2, np.int32)}
    for f in transform.make(config(), events=False):
        with pytest.raises(ConfigError, match=r"^data: x of still inputs is int\d+, .*; give uint8 from 0 to 255, or"):
            jax.eval_shape(f, KEY, batch)
    for f in transform.make(config(), events=True):  # counts are the same numbers in any type
        np.testing.assert_array_equal(f(KEY, batch)["x"], batch["x"])


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
    batch: dict[str, Any] = {"x": np.full((2, 1, 4, 4, len(white)), 255, np.uint8), "y": np.zeros(2, np.int32)}
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


@pytest.mark.parametrize("method", full_but(["bilinear"], ["nearest", "bilinear", "antialias"]))
def test_resized_before_the_largest_count_is_taken(method):
    f = transform.make(config(size=(6, 5), resize=method, normalise="max"), events=True)[1]
    batch = counts()
    out = f(KEY, batch)["x"]
    small = resize.METHODS[method](jnp.float32(batch["x"]), (6, 5))
    np.testing.assert_allclose(out, small / small.max((2, 3, 4), keepdims=True), rtol=1e-6)


@pytest.mark.parametrize("name", EVENTS)
def test_names_stand_for_the_augmentations_of_that_name(name):
    """Only traced: the program of each name is that of its function, and evaluation leaves frames as they are."""
    f = getattr(augment, name)
    expected = f if name == "batch_crop_flip" else augment.per_example(f)
    x = jnp.zeros((8, 6, 16, 16, 2))
    assert str(jax.make_jaxpr(transform._ON_EVENTS[name])(KEY, x)) == str(jax.make_jaxpr(expected)(KEY, x))
    _, evaluate = transform.make(config(augment=(name,)), events=True)
    np.testing.assert_array_equal(evaluate(KEY, counts())["x"], counts()["x"])


@pytest.mark.parametrize("name", ["crop", "batch_crop_flip"])
def test_a_crop_of_frames_is_padded_as_its_option_says(name):
    """Of ones, what is cropped has lost as many rows and columns as its window was moved."""
    train, _ = transform.make(config(augment=(name,), crop_padding=2), events=True)
    batch = counts() | {"x": np.ones((8, 6, 16, 16, 2), np.uint8)}
    cropped = jax.jit(jax.vmap(lambda key: train(key, batch)["x"]))(jax.random.split(KEY, 50))
    rows = np.asarray(cropped).max((2, 4, 5)).sum(-1)
    assert set(np.unique(16 - rows)) == {0, 1, 2}


def test_augmentations_run_in_their_order(monkeypatch):
    """After event_drop, the choice of frames, resizing and normalisation; then as they are listed."""
    calls = []

    def recorded(name):
        def function(key, x, *arguments, **options):
            calls.append(name)
            return x[:, :, :2, :2] if name == "nearest" else x

        return function

    monkeypatch.setattr(transform, "_ON_EVENTS", {name: recorded(name) for name in EVENTS})
    monkeypatch.setattr(augment, "choose_frames", recorded("frames"))
    monkeypatch.setitem(resize.METHODS, "nearest", lambda x, size: recorded("nearest")(None, x))
    monkeypatch.setattr(transform, "_by_largest", lambda x: recorded("max")(None, x))
    options = {"frames": 4, "size": (2, 2), "resize": "nearest", "normalise": "max"}
    for order in (("event_drop", *EVENTS[1:]), EVENTS[:0:-1]):
        train, evaluate = transform.make(config(augment=order, **options), events=True)
        jax.eval_shape(train, KEY, counts())
        first = ["event_drop"] * ("event_drop" in order)
        assert calls == [*first, "frames", "nearest", "max", *(name for name in order if name != "event_drop")]
        calls.clear()
        jax.eval_shape(evaluate, KEY, counts())
        assert calls == ["nearest", "max"]
        calls.clear()


def test_unmixed_batches_have_the_other_augmentations_and_probabilities():
    options = config(augment=("flip", "mixup"))
    unmixed = transform.make_unmixed(options, events=True)(KEY, counts())
    flipped = transform.make(config(augment=("flip",)), events=True)[0](KEY, counts())
    chex.assert_trees_all_equal(unmixed["x"], flipped["x"])
    np.testing.assert_array_equal(unmixed["y"], np.eye(10)[:8])


def test_augmentations_of_the_host_are_not_repeated():
    names = ("crop", "flip", "cutout", "autoaugment", "randaugment", "random_erasing")
    train, evaluate = transform.make(config(augment=names), events=False)
    chex.assert_trees_all_equal(train(KEY, images()), evaluate(KEY, images()))


@pytest.mark.parametrize("name", ["rate", pytest.param("latency", marks=pytest.mark.full)])
def test_brightness_is_mixed_and_then_encoded(name):
    train, evaluate = transform.make(config(encode=name, augment=("mixup",)), events=False)
    for f in (train, evaluate):
        x = f(KEY, images())["x"]
        assert x.shape == (8, 6, 16, 16, 3) and x.dtype == jnp.float32 and set(np.unique(x)) == {0, 1}
    brightness = images()["x"].astype(np.float32) / 255
    levels = {"rate": lambda x: x, "latency": lambda x: jnp.uint8(jnp.round(255 * x))}[name]
    chex.assert_trees_all_equal(x, getattr(encode, name)(KEY, levels(brightness), 6))
    encode_key, mix_key = jax.random.split(KEY, 2)
    mixed, _ = mix.mixup(mix_key, brightness, mix.probabilities(jnp.arange(8), 10))
    chex.assert_trees_all_equal(train(KEY, images())["x"], getattr(encode, name)(encode_key, levels(mixed), 6))


@pytest.mark.parametrize(
    ("steps", "frames", "units"), [(6, 4, (16, 16, 2)), (1, 1, (16, 16, 2)), (6, 3, (700,))], ids=str
)
def test_frames_are_chosen_for_training_alone_also_of_units_without_height_and_width(steps, frames, units):
    options = config(units, steps, frames=frames, augment=("mixup",), normalise="max")
    batch = counts(shape=(8, steps, *units))
    shapes = [jax.eval_shape(f, KEY, batch)["x"].shape for f in transform.make(options, events=True)]
    assert shapes == [(8, frames, *units), (8, steps, *units)]


def test_frames_are_not_chosen_from_records_of_one_time_step():
    train, _ = transform.make(config(frames=2), events=True)
    with pytest.raises(ConfigError, match=r"^data.frames: 2 is not possible for records of T = 1; leave it out"):
        jax.eval_shape(train, KEY, counts(shape=(8, 1, 16, 16, 2)))


OF_FRAMES = {"normalise": "max", "size": (12, 12), "resize": "bilinear", "frames": 4}


@pytest.mark.parametrize(
    "events, names",
    [
        (True, ("flip", "roll", "mixup", "cutmix")),
        pytest.param(False, ("crop", "flip", "cutout", "mixup", "cutmix"), marks=pytest.mark.full),
        pytest.param(True, (*EVENTS, "mixup", "cutmix"), marks=pytest.mark.slow),
    ],
)
def test_a_single_compilation_without_the_host_gives_finite_batches_and_mixed_labels(events, names):
    options = OF_FRAMES | {"frames": 4 if "event_drop" in names else None} if events else {"encode": "rate"}
    train, evaluate = transform.make(config(augment=names, **options), events)
    batch = counts() if events else images()
    outs = []
    for f in (train, evaluate):
        assert "callback" not in str(jax.make_jaxpr(f)(KEY, batch))
        f = jax.jit(chex.assert_max_traces(f, 1))
        outs.append([jax.tree.map(np.asarray, f(key, batch)) for key in jax.random.split(KEY, 3)])
    assert all(np.all(np.isfinite(out["x"])) for out in (*outs[0], *outs[1]))
    for trained, evaluated in zip(*outs, strict=True):
        assert trained["y"].shape == (8, 10)
        np.testing.assert_allclose(trained["y"].sum(1), 1, atol=1e-6)
        np.testing.assert_array_equal(evaluated["y"], batch["y"])


IMAGES, FRAMES, UNITS = "still images", "frames of events", "events without height and width"
BRIGHTNESS = r"data.encode=rate, which needs brightness in \[0, 1\]"


def rejected(field, value, kind, allowed):
    return f"^data.{field}: {value} is not possible for {kind}; allowed are {allowed}$"


@pytest.mark.parametrize(
    ("events", "options", "message"),
    [
        (
            False,
            {"augment": ("flip", "roll")},
            rejected("augment", "roll", IMAGES, "crop, .*, random_erasing, resized_crop, mixup, cutmix"),
        ),
        (
            True,
            {"augment": ("autoaugment", "resized_crop")},
            rejected("augment", "autoaugment, resized_crop", FRAMES, "event_drop, flip, .*, mixup, cutmix"),
        ),
        (True, {"shape": (700,), "augment": ("flip",)}, rejected("augment", "flip", UNITS, "mixup")),
        (True, {"shape": (700,), "resize": "nearest"}, rejected("resize", "nearest", UNITS, "events")),
        (False, {"resize": "nearest"}, rejected("resize", "nearest", IMAGES, "events")),
        (True, {"encode": "rate"}, rejected("encode", "rate", FRAMES, "direct")),
        (True, {"normalise": "standard"}, rejected("normalise", "standard", FRAMES, "none, max")),
        (False, {"normalise": "max"}, rejected("normalise", "max", IMAGES, "none, standard")),
        (
            False,
            {"name": "mnist", "normalise": "standard", "encode": "rate"},
            rejected("normalise", "standard", BRIGHTNESS, "none"),
        ),
        (
            False,
            {"normalise": "standard"},
            r"^data.normalise: mean and standard deviation of digits are not known, only those of mnist, .*, imagenet$",
        ),
        (False, {"frames": 3}, r"^data.frames: 3 is not possible for still images; allowed is None$"),
        (
            True,
            {"frames": 7},
            r"^data.frames: 7 is not possible with model.time_steps 6; allowed is up to model.time_steps$",
        ),
        (
            True,
            {"frames": 1},
            r"^data.frames: 1 is not possible with model.time_steps 6, where one .* still image; allowed is from 2 on$",
        ),
        (
            True,
            {"augment": ("flip", "event_drop")},
            r"^data.augment: .* is not possible; allowed is event_drop first, for it works on counts$",
        ),
        (
            True,
            {"resize": "nearest"},
            r"^data.size: None is not possible with data.resize nearest; allowed is a height and width$",
        ),
    ],
)
def test_impossible_options_are_rejected_in_one_line(events, options, message):
    with pytest.raises(ConfigError, match=message) as error:
        transform.make(config(**options), events=events)
    assert "\n" not in str(error.value)


def test_every_augmentation_of_the_config_is_implemented():
    assert {*transform.ON_HOST, *transform._ON_EVENTS, *transform._MIX} == set(get_args(AugmentName))
