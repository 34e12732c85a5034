"""Array files: mapped without copies, and hostile headers refused before memory is taken."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corruptions import InputError
from robustbench_msa.data.npy import mapped, read_header, tensor_of


def saved(path: Path, x: Any) -> Path:
    np.save(path, x)
    return path


def header(descr: str, shape: tuple[int, ...], fortran: bool = False) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": descr, "fortran_order": fortran, "shape": shape})
    return out.getvalue()


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<i8", "?", "<U5", "S3"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4), (0, 3)])
def test_mapped_arrays_are_those_that_were_saved(dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    x = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    found = mapped(saved(tmp_path / "x.npy", x))
    np.testing.assert_array_equal(found, x)
    assert found.dtype == x.dtype
    assert not found.flags.writeable or not found.size


def test_fortran_order(tmp_path: Path) -> None:
    x = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(mapped(saved(tmp_path / "x.npy", x)), x)
    np.testing.assert_array_equal(tensor_of(mapped(tmp_path / "x.npy")), x)


def test_a_tensor_shares_the_mapped_memory(tmp_path: Path) -> None:
    x = mapped(saved(tmp_path / "x.npy", np.ones((4, 5), np.float32)))
    tensor = tensor_of(x)
    assert tensor.data_ptr() == x.__array_interface__["data"][0]
    torch.testing.assert_close(tensor + 1, torch.full((4, 5), 2.0))


def test_other_byte_orders_are_converted(tmp_path: Path) -> None:
    x = mapped(saved(tmp_path / "x.npy", np.arange(5, dtype=">f4")))
    np.testing.assert_array_equal(tensor_of(x), np.arange(5, dtype=np.float32))


BROKEN = {
    "empty": (b"", "expected a .npy array .*it is empty"),
    "web page": (b"<!DOCTYPE html><html>", "this is a web page or XML"),
    "pickle": (b"\x80\x04}.", "it begins with"),
    "cut in its magic": (b"\x93NUM", "expected a .npy array"),
    "cut in its length": (b"\x93NUMPY\x01\x00\x76", "expected a header of at most"),
    "cut in its header": (header("<f4", (3,))[:40], "broken or truncated"),
    "header without end": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", r"at most 10,000 characters, got 4,294,967,295"),
    "an expression": (b"\x93NUMPY\x01\x00\x20\x00" + b"__import__('os').getcwd()".ljust(32), "broken or truncated"),
    "nested without end": (b"\x93NUMPY\x01\x00\x00\x20" + b"(" * 0x2000, "broken or truncated"),
    "objects": (header("|O", (3,)) + b"\x80\x04N.", "Python objects, which are pickles"),
    "records": (header([("a", "<f4")], (1,)) + bytes(4), "expected numbers or strings"),  # type: ignore[arg-type]
    "complex": (header("<c8", (1,)) + bytes(8), "expected numbers or strings, got dtype complex64"),
    "dates": (header("<M8[s]", (1,)) + bytes(8), "expected numbers or strings"),
    "40 GB": (header("<f4", (10**10,)) + bytes(8), "announces 40,000,000,000 bytes of values, the file has 8"),
    "beyond 64 bits": (header("<f4", (2**62, 2**62)), "a shape of at most 8 sizes"),
    "strings of no length": (header("|S0", (2**62,)), "strings of at least 1, got"),
    "more than double": (header("<f16", (0,)), "numbers of at most 8 bytes"),
    "a size that is True": (header("|S1", (1,)).replace(b"(1,), }", b"(True,)}") + b"x", "a shape of at most 8 sizes"),
    "empty beyond 64 bits": (header("<f8", (0, 2**64 - 1)), "a shape of at most 8 sizes"),
    "negative": (header("<f4", (-1, 4)), "a shape of at most 8 sizes"),
    "too few values": (header("<f4", (3,)) + bytes(11), "announces 12 bytes of values, the file has 11"),
    "too many values": (header("<f4", (3,)) + bytes(13), "announces 12 bytes of values, the file has 13"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    content, message = BROKEN[name]
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        mapped(path)
    assert "\n" not in str(error.value)


def test_links_and_folders_are_not_files(tmp_path: Path) -> None:
    target = saved(tmp_path / "x.npy", np.ones(3))
    (tmp_path / "link.npy").symlink_to(target)
    with pytest.raises(InputError, match="a symbolic link, which is not followed"):
        mapped(tmp_path / "link.npy")
    with pytest.raises(InputError, match="not a regular file"):
        mapped(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        mapped(tmp_path / "none.npy")


def test_the_stream_is_left_at_the_values() -> None:
    stream = io.BytesIO(header("<f4", (2, 3)) + b"values")
    found = read_header(stream, "here")
    assert (found.shape, found.dtype, found.nbytes, stream.read()) == ((2, 3), np.float32, 24, b"values")
