"""Makes ``palimpsest/_sync`` from ``palimpsest/_async``: one source, two clients.

python unasync.py            writes it
python unasync.py --check    fails where it is not what is written
"""

import re
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent / "palimpsest"
#: Written by hand in both.
BY_HAND = {"bridge.py", "__init__.py"}
#: ``AsyncRef`` is a handle; ``Ref`` is a value: they meet in one module.
RULES = [
    (r"\basync (def|for|with) ", r"\1 "),
    (r"\bawait ", ""),
    (r"\bAsyncRef\b", "RefHandle"),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\bAsync([A-Z]\w*)", r"\1"),
    (r"__aenter__", "__enter__"),
    (r"__aexit__", "__exit__"),
    (r"_async\b", "_sync"),
]
HEAD = "# Made from _async/{name} by unasync.py: change that one.\n"


def made(source: Path) -> str:
    """The module without its awaits."""
    text = source.read_text(encoding="utf-8")
    for pattern, replacement in RULES:
        text = re.sub(pattern, replacement, text)
    return HEAD.format(name=source.name) + text


def main() -> int:
    wrong = []
    for source in sorted((PACKAGE / "_async").glob("*.py")):
        if source.name in BY_HAND:
            continue
        target = PACKAGE / "_sync" / source.name
        text = made(source)
        if "--check" in sys.argv:
            if not target.exists() or target.read_text(encoding="utf-8") != text:
                wrong.append(target.name)
        else:
            target.write_text(text, encoding="utf-8")
    if wrong:
        print(f"_sync is not made from _async: {', '.join(wrong)}; run python unasync.py")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
