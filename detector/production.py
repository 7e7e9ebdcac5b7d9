"""From radiographs to weights: generators, their fakes, the network, its thresholds; all of it goes on where it was stopped."""

from __future__ import annotations

import csv
import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch

from detector.calibrate import calibrate
from detector.fakes.spectra import SIMULATIONS
from detector.inference import CALIBRATION, NETWORK, onnx_logits
from detector.material import Material, real_images
from detector.recipe import TRAINED, Kitchen, all_fakes, generators, make_fakes, train_generator
from detector.splits import Split
from detector.train import export, load, train
from detector.trials import SIZES, Trial, fake_subjects, look, real_subjects

VERSION: Final = "1"
SAFETENSORS: Final = "network.safetensors"
WHOLE: Final = 10_000
"""Pixels a side: radiographs are calibrated with as they are."""
LEARNT_FAKES: Final = 12
"""Of each generator's fakes that the network learnt from: how many the statistics are fitted to."""

Told = Callable[[str, int, int], None]
"""What is at work, how much is done, of how much."""


def produce(kitchen: Kitchen, weights: Path, *, jobs: int, told: Told) -> None:
    """Makes the weights in a folder. What an earlier run finished isn't done again. `log.csv` has how long each stage took."""
    kitchen.folder.mkdir(parents=True, exist_ok=True)
    with _logged(kitchen, "generators"):
        _each(train_generator, kitchen, TRAINED, jobs, told)
    with _logged(kitchen, "fakes"):
        _each(make_fakes, kitchen, generators(), jobs, told)
    with _logged(kitchen, "network"):
        train_network(kitchen, told)
    with _logged(kitchen, "calibration"):
        finish(kitchen, weights, told)


def train_network(
    kitchen: Kitchen,
    told: Told,
    *,
    name: str = "network",
    steps: int | None = None,
    without: Sequence[str] = (),
    source: str | None = None,
) -> Path:
    """The file of its weights. without: families of fakes that it never sees; source: the only one whose images it sees."""
    reals = {patient: pixels for patient, (_, pixels) in real_images(kitchen.data, ["train"], source).items()}
    fakes = [
        fake
        for folder in all_fakes(kitchen, "train")
        for fake in folder
        if fake.family not in without and source in (None, fake.source)
    ]
    steps = kitchen.amounts.network_steps if steps is None else steps
    return train(
        Material(reals, fakes, SIMULATIONS),
        kitchen.folder / "networks",
        name=name,
        seed=kitchen.seed,
        steps=steps,
        progress=lambda done, total: told(name, done, total),
    )


def finish(kitchen: Kitchen, weights: Path, told: Told) -> None:
    """From the trained network to the weights in use: ONNX, the calibration that belongs to it, and the network for torch."""
    trained = kitchen.folder / "networks" / SAFETENSORS
    weights.mkdir(parents=True, exist_ok=True)
    exported = kitchen.folder / NETWORK
    digest = export(load(trained), exported)
    logits = onnx_logits(exported.read_bytes(), torch.get_num_threads())
    learnt = trials(kitchen, "train", logits, told, fakes=LEARNT_FAKES)
    held_out = trials(kitchen, "calibrate", logits, told)
    found = calibrate(learnt, held_out, version=VERSION, network_sha256=digest)
    shutil.copyfile(exported, weights / NETWORK)
    shutil.copyfile(trained, weights / SAFETENSORS)
    found.save(weights / CALIBRATION)


def trials(
    kitchen: Kitchen, split: Split, logits: Callable[[Any], Any], told: Told, *, fakes: int | None = None
) -> list[Trial]:
    """All real images of a split as they are, and its fakes (at most so many of each generator), at each size."""
    reals = real_images(kitchen.data, [split], side=WHOLE)
    if kitchen.amounts.fakes[split] < len(reals) // 10:  # a small run
        reals = dict(list(reals.items())[:: max(1, len(reals) // 100)])
    found: list[Trial] = []
    for number, subject in enumerate(real_subjects(reals), 1):
        found += look([subject], SIZES, logits, vary=True)
        told(f"real images, {split}", number, len(reals))
    names = generators()
    for number, name in enumerate(names, 1):
        listed = list(kitchen.fakes(name, split))[:fakes]
        found += look(fake_subjects(listed), SIZES, logits, vary=True)
        told(f"fakes, {split}", number, len(names))
    return found


def _each(
    task: Callable[[Kitchen, str, Callable[[int, int], None]], None],
    kitchen: Kitchen,
    names: Sequence[str],
    jobs: int,
    told: Told,
) -> None:
    """The task for each name, in so many processes of one thread each. The first error ends it; what was done stays."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(jobs, context, torch.set_num_threads, (1,)) as pool:
        channel = manager.Queue()
        running = {pool.submit(_one, task, kitchen, name, channel) for name in names}
        while running:
            done, running = wait(running, timeout=0.5)
            while not channel.empty():
                told(*channel.get())
            try:
                for one in done:
                    one.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _one(task: Callable[[Kitchen, str, Callable[[int, int], None]], None], kitchen: Kitchen, name: str, channel: Any) -> None:
    last = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last > 1:
            last = time.monotonic()
            channel.put((name, done, total))

    task(kitchen, name, progress)


@contextmanager
def _logged(kitchen: Kitchen, stage: str) -> Iterator[None]:
    begun = time.monotonic()
    yield
    file = kitchen.folder / "log.csv"
    new = not file.exists()
    with file.open("a", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        if new:
            writer.writerow(("stage", "seconds"))
        writer.writerow((stage, round(time.monotonic() - begun)))
