"""Records survive what happens to processes and files, and can be followed while they are written."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from sb3_q2rl.envs import records
from sb3_q2rl.envs.records import MAGIC, RecordFile, RecordReader, read_records

WRITER = """
import importlib.util, sys, numpy as np
spec = importlib.util.spec_from_file_location("records", sys.argv[2])  # without torch, which takes seconds
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
file = module.RecordFile(sys.argv[1])
i = 0
while True:
    i += 1
    file.append({"i": i}, {"state": np.full(5, i, np.float32), "wrist_rgb": np.full((84, 84, 3), i % 256, np.uint8)})
    print(i, flush=True)
"""


def write(path, n: int = 4) -> None:
    file = RecordFile(path)
    for i in range(n):
        file.append({"i": i, "text": "é"}, {"x": np.arange(i), "empty": np.zeros((0, 3))})
    file.close()


def test_what_was_written_is_read(tmp_path):
    write(tmp_path / "deep" / "x.log")
    for i, (head, arrays) in enumerate(read_records(tmp_path / "deep" / "x.log")):
        assert head == {"i": i, "text": "é"}
        np.testing.assert_array_equal(arrays["x"], np.arange(i))
        assert arrays["empty"].shape == (0, 3)
    assert i == 3
    assert (tmp_path / "deep" / "x.log").read_bytes().startswith(MAGIC)


def test_a_killed_process_loses_at_most_the_last_record(tmp_path):
    path = tmp_path / "x.log"
    for round_number in range(3):
        command = [sys.executable, "-c", WRITER, path, records.__file__]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for _ in range(25):
                told = int(process.stdout.readline())
            os.kill(process.pid, signal.SIGKILL)
            rest = process.stdout.read().split()
            told = int(rest[-1]) if rest else told
        found = list(read_records(path))
        if round_number == 0:
            assert len(found) in (told, told + 1)
            for i, (head, arrays) in enumerate(found, start=1):
                assert head["i"] == i
                assert (arrays["wrist_rgb"] == i % 256).all()
    assert len(found) >= 75


@pytest.mark.parametrize("cut", [1, 3, 8, 20])
def test_a_torn_tail_is_put_aside_and_writing_goes_on(tmp_path, cut):
    path = tmp_path / "x.log"
    write(path)
    os.truncate(path, path.stat().st_size - cut)
    assert len(list(read_records(path))) == 3
    write(path)
    assert len(list(read_records(path))) == 7
    assert len(list(tmp_path.glob("*.torn-*"))) == 1


def test_zeros_that_a_power_cut_left_are_no_records(tmp_path):
    path = tmp_path / "x.log"
    write(path)
    with open(path, "ab") as file:
        file.write(bytes(4096))
    assert len(list(read_records(path))) == 4
    write(path)
    assert len(list(read_records(path))) == 8
    (torn,) = tmp_path.glob("*.torn-*")
    assert torn.read_bytes() == bytes(4096)


def test_every_length_of_a_file_can_be_read(tmp_path):
    path = tmp_path / "x.log"
    write(path)
    whole = path.read_bytes()
    counts = []
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        counts.append(len(list(read_records(path))))
    assert counts == sorted(counts)
    assert counts[-1] == 4
    path.write_bytes(whole[:10])  # killed while it was made
    write(path)
    assert len(list(read_records(path))) == 4


def test_a_damaged_record_ends_the_reading_but_nothing_is_thrown_away(tmp_path):
    path = tmp_path / "x.log"
    write(path, 8)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    sound = len(list(read_records(path)))
    assert 0 < sound < 8
    write(path)
    assert len(list(read_records(path))) == sound + 4
    (torn,) = tmp_path.glob("*.torn-*")
    assert len(torn.read_bytes()) > 100


def test_another_file_is_left_alone(tmp_path):
    path = tmp_path / "thesis.tex"
    path.write_text("years of work")
    for call in (lambda: list(read_records(path)), lambda: write(path), lambda: list(RecordReader(path).new())):
        with pytest.raises(ValueError, match="no file of records"):
            call()
    assert path.read_text() == "years of work"


def test_a_reader_follows_byte_by_byte(tmp_path):
    write(tmp_path / "whole.log")
    path, seen = tmp_path / "growing.log", []
    reader = RecordReader(path)
    assert list(reader.new()) == []  # there is no file yet
    with open(path, "wb", buffering=0) as file:
        for byte in (tmp_path / "whole.log").read_bytes():
            file.write(bytes([byte]))
            seen += [record.head["i"] for record in reader.new()]
    assert seen == [0, 1, 2, 3]
    write(path, 2)
    assert [record.head["i"] for record in reader.new()] == [0, 1]
    reader.close()
    assert len(list(reader.new())) == 6


def test_a_reader_outlives_a_writer_that_was_killed(tmp_path):
    path = tmp_path / "x.log"
    write(path)
    os.truncate(path, path.stat().st_size - 3)
    reader = RecordReader(path)
    assert len(list(reader.new())) == 3
    write(path, 2)  # cuts the torn record away
    assert [record.head["i"] for record in reader.new()] == [0, 1]
