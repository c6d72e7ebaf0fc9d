"""Whether the files of a zip file are those of a folder: the same names, and in each the same arrays."""

import io
import pathlib
import sys
import zipfile

import numpy as np

taken, folder = zipfile.ZipFile(sys.argv[1]), pathlib.Path(sys.argv[2])
assert taken.testzip() is None
assert sorted(taken.namelist()) == sorted(it.name for it in folder.iterdir()), taken.namelist()
for name in taken.namelist():
    with np.load(io.BytesIO(taken.read(name))) as ours, np.load(folder / name) as theirs:
        assert sorted(ours.files) == sorted(theirs.files), (name, ours.files, theirs.files)
        for array in theirs.files:
            one, other = ours[array], theirs[array]
            assert (one.dtype, one.shape) == (other.dtype, other.shape), (name, array, one, other)
            assert one.tobytes() == other.tobytes(), (name, array, one, other)
print(len(taken.namelist()))
