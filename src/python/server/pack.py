"""Packs the program as a wheel: python pack.py PROGRAM VERSION FOLDER.

The wheel is for every Python (it has no extension module) and for every Linux whose glibc is as new
as the program needs, which is read from the program. The same program gives the same bytes.
"""

import base64
import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
NAME = "palimpsest_lm_server"
#: The earliest time that a zip file can tell.
WHEN = (1980, 1, 1, 0, 0, 0)

METADATA = """\
Metadata-Version: 2.4
Name: palimpsest-lm-server
Version: {version}
Summary: The program palimpsest: traces, edits and versions the facts of language models
License-Expression: MIT OR Apache-2.0
License-File: LICENSE-MIT
License-File: LICENSE-APACHE
Requires-Python: >=3.10
Requires-Dist: torch (=={torch}.*)
Description-Content-Type: text/markdown

The program of [palimpsest-lm](https://pypi.org/project/palimpsest-lm/): coordinator, worker and
command line. It runs on the libtorch of the package torch, and on GPUs where that does.

    pip install "palimpsest-lm[server]"
    palimpsest doctor
"""


def needs(program: Path) -> tuple[int, int]:
    """The newest glibc whose symbols a program uses."""
    told = subprocess.run(
        ["readelf", "--version-info", "--wide", program], capture_output=True, text=True, check=True
    ).stdout
    found = [(int(a), int(b)) for a, b in re.findall(r"GLIBC_(\d+)\.(\d+)", told)]
    return max(found)


def main() -> None:
    program, version, folder = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    init = (HERE / "palimpsest_server/__init__.py").read_text()
    torch = re.search(r'^TORCH = "(.*)"$', init, re.MULTILINE)
    assert torch is not None, "palimpsest_server says no version of torch"
    major, minor = needs(program)
    tag = f"py3-none-manylinux_{major}_{minor}_x86_64"
    info = f"{NAME}-{version}.dist-info"
    files = {
        "palimpsest_server/__init__.py": init.encode(),
        "palimpsest_server/bin/palimpsest": program.read_bytes(),
        f"{info}/METADATA": METADATA.format(version=version, torch=torch[1]).encode(),
        f"{info}/WHEEL": (
            f"Wheel-Version: 1.0\nGenerator: pack.py\nRoot-Is-Purelib: false\nTag: {tag}\n"
        ).encode(),
        f"{info}/entry_points.txt": b"[console_scripts]\npalimpsest = palimpsest_server:main\n",
    }
    for name in ("LICENSE-MIT", "LICENSE-APACHE"):
        files[f"{info}/licenses/{name}"] = (HERE.parent / name).read_bytes()
    record = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record.append(f"{name},sha256={digest},{len(data)}\n")
    files[f"{info}/RECORD"] = "".join([*record, f"{info}/RECORD,,\n"]).encode()
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{NAME}-{version}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as zipped:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, WHEN)
            entry.compress_type = zipfile.ZIP_DEFLATED
            # With the type of a file: pip drops the right to run it otherwise.
            entry.external_attr = (0o100755 if "/bin/" in name else 0o100644) << 16
            zipped.writestr(entry, data)
    print(wheel)


if __name__ == "__main__":
    main()
