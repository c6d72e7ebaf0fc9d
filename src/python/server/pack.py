"""Packs the program as a wheel: python pack.py PROGRAM VERSION FOLDER.

The wheel is for every Python (it has no extension module) and for every Linux of PLATFORM, which is
checked: the program may ask for no newer symbols, for no library but those of that platform and of
torch, and must look for torch's where pip puts them. The same program gives the same bytes.
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

PLATFORM = "manylinux_2_34_x86_64"
#: The newest symbols that this platform has, and its libraries; and those of torch.
SYMBOLS = {"GLIBC": (2, 34), "GLIBCXX": (3, 4, 29), "CXXABI": (1, 3, 13), "GCC": (7, 0, 0)}
SYSTEM = {"libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2"}
TORCH = {"libtorch.so", "libtorch_cpu.so", "libc10.so"}
#: From site-packages/palimpsest_server/bin.
RPATH = "$ORIGIN/../../torch/lib"

METADATA = """\
Metadata-Version: 2.4
Name: palimpsest-lm-server
Version: {version}
Summary: The program palimpsest: traces, edits and versions the facts of language models
License-Expression: MIT OR Apache-2.0
License-File: LICENSE-MIT
License-File: LICENSE-APACHE
Requires-Python: >=3.10
Requires-Dist: torch=={torch}.*
Description-Content-Type: text/markdown

The program of [palimpsest-lm](https://pypi.org/project/palimpsest-lm/): coordinator, worker and
command line. It runs on the libtorch of the package torch, and on GPUs where that does.

    pip install "palimpsest-lm[server]"
    palimpsest doctor
"""


def problems(program: Path) -> list[str]:
    """Why a program would not run on the platform, with the torch that is installed beside it."""

    def told(*options: str) -> str:
        command = ["readelf", "--wide", *options, str(program)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    found: list[str] = []
    for name, version in sorted(set(re.findall(r"Name: ([A-Z]+)_([0-9.]+)", told("-V")))):
        newest = SYMBOLS.get(name)
        if newest is None or tuple(map(int, version.split("."))) > newest:
            found.append(f"it needs {name}_{version}, and {PLATFORM} has {newest}")
    dynamic = told("-d")
    for library in re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic):
        if library not in SYSTEM | TORCH:
            found.append(f"it needs {library}, which neither {PLATFORM} nor every torch has")
    # By RPATH: by RUNPATH, libraries of LD_LIBRARY_PATH would go before it.
    paths = re.findall(r"\((RPATH|RUNPATH)\).*\[(.*)\]", dynamic)
    if paths != [("RPATH", RPATH)]:
        found.append(f"it looks for torch by {paths}, in place of RPATH {RPATH}")
    return found


def main() -> None:
    program, version, folder = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    init = (HERE / "palimpsest_server/__init__.py").read_text()
    torch = re.search(r'^TORCH = "(.*)"$', init, re.MULTILINE)
    assert torch is not None, "palimpsest_server says no version of torch"
    wrong = problems(program)
    if wrong:
        sys.exit(f"{program}: " + "; ".join(wrong))
    tag = f"py3-none-{PLATFORM}"
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
