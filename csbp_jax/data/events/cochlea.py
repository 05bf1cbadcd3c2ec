"""Spikes of a cochlear model for recorded sound: a filter bank, compression, and one integrate-and-fire unit a channel.

For sound x of sample rate f and the channels c = 0 ... 63,

    y_c = gammatone_c * x               4th-order IIR filters (Slaney 1993, ``scipy.signal.gammatone``)
    e_c = low-pass(max(y_c, 0))         envelope: half-wave rectified, then a first-order Butterworth filter at 40 Hz
    a_c = max(0, 1 + 20 log10(e_c / max e) / 50)       level: 1 at the loudest sample of any channel, 0 at 50 dB below
    n_c[t] = floor(200 / f sum_{s <= t} a_c[s])        a unit that integrates 200 a_c per second and fires at 1

and channel c spikes at each sample at which n_c grows. Centre frequencies are evenly spaced from 100 Hz to 3.8 kHz on
the ERB-number scale ``21.4 log10(1 + 0.00437 hertz)`` (Glasberg & Moore 1990), from low to high. Levels are relative to
the recording's own maximum, so that a factor on all samples changes nothing.
"""

import functools
import pathlib
import wave
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csbp_jax.config import ConfigError
from csbp_jax.data.events.readers import Events
from csbp_jax.runtime import files

VERSION = 1
"""Part of the data's fingerprint: change it when the model changes the spikes of a recording."""

CHANNELS = 64
SAMPLE_RATE = 8000
_LOWEST, _HIGHEST = 100.0, 3800.0  # Hz
_SMOOTHING = 40.0  # Hz
_RANGE = 50.0  # dB
_RATE = 200.0  # spikes per second of the loudest channel
_LONGEST = 60  # seconds


def spikes(sound: NDArray[Any]) -> Events:
    """Encode sound as spikes (equations at the top of this module).

    Args:
      sound: samples ``[N]`` at 8 kHz, in any unit.

    Returns:
      One event per spike, in order of time: x is the channel, y and p are 0, t is in microseconds. Silence has none.
    """
    from scipy import signal

    x = np.asarray(sound, np.float64)
    rectified = np.stack([np.maximum(signal.lfilter(b, a, x), 0) for b, a in _filters()])
    envelope = signal.lfilter(*signal.butter(1, _SMOOTHING, fs=SAMPLE_RATE), rectified, axis=1)
    loudest = envelope.max(initial=np.finfo(np.float64).tiny)  # above 0, so that silence is at level 0
    level = 1 + 20 / _RANGE * np.log10(np.maximum(envelope / loudest, 10 ** (-_RANGE / 20)))
    count = np.floor(_RATE / SAMPLE_RATE * np.cumsum(level, axis=1))
    time, channel = np.nonzero(np.diff(count, axis=1, prepend=0).T)
    zero = np.zeros(len(time), np.int64)
    return Events(channel, zero, time * (1_000_000 // SAMPLE_RATE), zero, (1, CHANNELS))


def centre_frequencies() -> NDArray[np.float64]:
    """Return the channels' centre frequencies in Hz, ascending."""
    low, high = (21.4 * np.log10(1 + 0.00437 * frequency) for frequency in (_LOWEST, _HIGHEST))
    return (10 ** (np.linspace(low, high, CHANNELS) / 21.4) - 1) / 0.00437


@functools.cache
def _filters() -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    from scipy import signal

    return [signal.gammatone(frequency, "iir", fs=SAMPLE_RATE) for frequency in centre_frequencies()]


def read_wav(path: pathlib.Path) -> NDArray[np.int16]:
    """Read the samples ``[N]`` of a mono wav file of 16 bits at 8 kHz.

    Raises:
      ConfigError: the file cannot be read, is of another form, empty, or longer than a minute.
    """
    files.check(path)
    with files.readable(path, "fetch it again"), wave.open(str(path), "rb") as file:
        form = file.getnchannels(), 8 * file.getsampwidth(), file.getframerate()
        count = file.getnframes()
        content = file.readframes(min(count, _LONGEST * SAMPLE_RATE + 1))
    if form != (1, 16, SAMPLE_RATE):
        raise ConfigError(
            f"{path}: has {form[0]} channels of {form[1]} bits at {form[2]} Hz; convert it to 1 channel of 16 bits at "
            f"{SAMPLE_RATE} Hz"
        )
    if not 0 < count <= _LONGEST * SAMPLE_RATE:
        raise ConfigError(f"{path}: lasts {count / SAMPLE_RATE:g} s; allowed is above 0 and up to {_LONGEST} s")
    if len(content) != 2 * count:
        raise ConfigError(f"{path}: truncated, {len(content) // 2} of {count} samples; fetch it again")
    return np.frombuffer(content, "<i2")
