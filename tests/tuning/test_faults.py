"""Sweeps whose workers and driver are killed, whose disk is full, whose file is damaged: real processes."""

import functools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from toolkit.cli import main
from toolkit.tuning.report import find_sweeps
from toolkit.tuning.trials import points_of

ROOT = Path(__file__).resolve().parents[2]
TOYS = f"{ROOT}/tests/toys.py"
OPTIONS = ["class_incremental", "--strategy", f"{TOYS}:ToyNet", "--strategy.epochs", "12", "--dataset", f"{TOYS}:Toy",
           "--dataset.categories", "3", "--split", "even:3", "--cache", "none", "--device", "cpu", "--study", "s",
           "--rule", "oracle", "--pruner", "none", "--memory", "0.5"]  # fmt: skip
TRIALS = "9"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # minutes, but hours on a machine with much else to do


def start(output, *more):
    command = [sys.executable, "-m", "toolkit.cli", "sweep", *OPTIONS, "--output", str(output), *map(str, more)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                            start_new_session=True, preexec_fn=heed_interrupts)  # fmt: skip


def heed_interrupts():
    """A shell starts what it puts into the background deaf to Ctrl-C; that would be inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finish(process, seconds=1500):
    _, errors = process.communicate(timeout=seconds)
    assert process.returncode == 0, errors


def until(condition, process, seconds=1500):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
        time.sleep(0.02)


def settled(output):
    try:
        return sum(p.settled for p in points_of(find_sweeps([output])[0].studies[""].trials))
    except Exception:  # nothing there yet
        return 0


def table(output):
    return (output / "s" / "report" / "oracle" / "trials.csv").read_bytes()


def without_attempts(content, path):
    """The table without the number of attempts, which is meant to tell of the disturbance."""
    path.write_bytes(content)
    return pd.read_csv(path).drop(columns="attempts").to_csv()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Gives the table of trials of an undisturbed sweep for a sampler."""

    @functools.cache
    def of(sampler):
        output = tmp_path_factory.mktemp(sampler)
        assert main(["sweep", *OPTIONS, "--executor", "inline", "--trials", TRIALS, "--sampler", sampler, "--output",
                     str(output)]) == 0  # fmt: skip
        return table(output)

    return of


@pytest.mark.parametrize(("sampler", "workers"), [("random", 2), ("tpe", 1)])
def test_killed_workers_and_killed_driver(tmp_path, undisturbed, sampler, workers):
    options = ["--trials", TRIALS, "--sampler", sampler, "--workers", workers]
    generator = random.Random(1)
    driver = start(tmp_path, *options)
    for target in (1, 3):
        until(lambda target=target: settled(tmp_path) >= target, driver)
        time.sleep(generator.uniform(0, 0.5))
        psutil.Process(driver.pid).children()[0].kill()
    until(lambda: settled(tmp_path) >= 5, driver)
    workers_left = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.wait()
    psutil.wait_procs(workers_left, timeout=20)
    assert settled(tmp_path) < int(TRIALS)
    finish(start(tmp_path, *options))
    assert settled(tmp_path) == int(TRIALS)
    scratch = tmp_path / "scratch.csv"
    assert without_attempts(table(tmp_path), scratch) == without_attempts(undisturbed(sampler), scratch)


def test_two_drivers_and_a_truncated_journal(tmp_path, undisturbed):
    options = ["--trials", TRIALS, "--sampler", "random", "--workers", 1]
    first = start(tmp_path, *options)
    until(lambda: settled(tmp_path) >= 2, first)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    journal = tmp_path / "s" / "oracle" / "study.journal"
    content = journal.read_bytes()
    journal.write_bytes(content + content.splitlines()[-1][:40])  # the kill hit in the middle of a line
    both = [start(tmp_path, *options), start(tmp_path, *options)]
    for driver in both:
        finish(driver)
    assert settled(tmp_path) == int(TRIALS)
    scratch = tmp_path / "scratch.csv"
    assert without_attempts(table(tmp_path), scratch) == without_attempts(undisturbed("random"), scratch)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_stopping_politely(tmp_path, undisturbed, how):
    options = ["--trials", TRIALS, "--sampler", "random", "--workers", 2]
    driver = start(tmp_path, *options)
    until(lambda: settled(tmp_path) >= 2, driver)
    os.killpg(driver.pid, how)
    _, errors = driver.communicate(timeout=600)
    assert driver.returncode == 130 and "the same command goes on" in errors and "Traceback" not in errors
    finish(start(tmp_path, *options))
    scratch = tmp_path / "scratch.csv"
    assert without_attempts(table(tmp_path), scratch) == without_attempts(undisturbed("random"), scratch)


def test_full_disk(tmp_path, undisturbed):
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", str(place)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a small file system here")
    try:
        options = ["--trials", TRIALS, "--sampler", "random", "--workers", 2]
        driver = start(place, *options)
        _, errors = driver.communicate(timeout=1500)
        assert driver.returncode == 2 and "No space left" in errors and "Traceback" not in errors, errors
        subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
        finish(start(place, *options))
        scratch = tmp_path / "scratch.csv"
        assert without_attempts(table(place), scratch) == without_attempts(undisturbed("random"), scratch)
    finally:
        subprocess.run(["umount", str(place)], check=True)
