"""Pages that are files of the repository, and links between these, the pages and the sources.

README.md and other documents are read on GitHub where they are. A page shows one of them, or a part:

    ```{include} ../README.md
    :start-after: "## Words"
    :end-before: "## Read on"
    ```

The text is put in place of the directive before it is parsed. In every page links are turned into those
of the site: to pages, whichever file these are, by their title where the link only gave a path; and for
files that are no page of the site there is their name.
"""

import os
import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

DOCS = Path(__file__).absolute().parents[1]
ROOT = DOCS.parent
_INCLUDE = re.compile(r"^```\{include\} (\S+)\n((?::.*\n)*)```$", re.MULTILINE)
_OPTION = re.compile(r'^:([a-z-]+): "?(.*?)"?$', re.MULTILINE)
_LINK = re.compile(r"(!?)\[([^\[\]]*)\]\(([^()\s]+)\)")
_FENCE = re.compile(r"^ *(```|~~~)")
_HEADING = re.compile(r"^#{1,5} ")


def _joined(folder: Path, target: str) -> Path:
    return Path(os.path.normpath(folder / target))  # links stay what they are


def pages() -> dict[Path, str]:
    """The pages, as links name them, by the files that they show as a whole; README.md is the first."""
    found = {ROOT / "README.md": "/index.md"}
    for page in sorted(DOCS.rglob("*.md")):
        if "_build" not in page.parts:
            found[page] = "/" + page.relative_to(DOCS).as_posix()
            for target, options in _INCLUDE.findall(page.read_text(encoding="utf-8")):
                if not options:
                    found[_joined(page.parent, target)] = found[page]
    for notebook in DOCS.glob("notebooks/*.ipynb"):
        found[notebook] = "/" + notebook.relative_to(DOCS).as_posix()
    return found


def outside_of_code(text: str, change) -> str:
    """The text with each line changed that is in no block of code between fences."""
    lines, fence = [], None
    for line in text.split("\n"):
        found = _FENCE.match(line)
        if found and fence in (None, found[1]):
            fence = found[1] if fence is None else None
            lines.append(line)
        else:
            lines.append(line if fence else change(line))
    return "\n".join(lines)


def with_links(text: str, folder: Path, known: dict[Path, str]) -> str:
    """The text with the site's links, where a document in this folder has those of the repository."""
    def changed(found: re.Match[str]) -> str:
        mark, shown, target = found.groups()
        place, _, anchor = target.partition("#")
        if "://" in target or not place or place.startswith("/"):
            return found[0]
        file = _joined(folder, place)
        if mark:
            return f"![{shown}](/{file.relative_to(DOCS).as_posix()})" if file.is_file() else found[0]
        if file in known:
            words = "" if file.name == Path(shown).name else shown
            return f"[{words}]({known[file]}{'#' + anchor if anchor else ''})"
        return f"`{shown.strip('`')}`" if file.exists() and file.is_relative_to(ROOT) else found[0]

    return outside_of_code(text, lambda line: _LINK.sub(changed, line))


def in_steps(text: str) -> str:
    """The text with headings of which the first is alone on top, and each is one below its part's."""
    above: list[int] = []

    def change(line: str) -> str:
        if not _HEADING.match(line):
            return line
        level = len(line) - len(line.lstrip("#")) if above else 0
        while above and above[-1] >= level:
            above.pop()
        above.append(level)
        return "#" * len(above) + line.lstrip("#")

    return outside_of_code(text, change)


def included(page: Path, text: str, known: dict[Path, str], read=lambda file: None) -> str:
    """The text of a page with the files in it that it includes, and the site's links in all of it.

    Args:
        page: its file.
        text: what is in it.
        known: `pages()`.
        read: called with each file that is included.

    Raises:
        ExtensionError: a file that isn't there, or lacks the line from which it is to be included.
    """
    def change(found: re.Match[str]) -> str:
        file = _joined(page.parent, found[1])
        if not file.is_file():
            raise ExtensionError(f"{page.name} includes {found[1]}, which is not there")
        read(file)
        inside = file.read_text(encoding="utf-8")
        for name, line in _OPTION.findall(found[2]):
            if name not in ("start-after", "end-before") or line not in inside:
                raise ExtensionError(f"{page.name} includes {found[1]} by :{name}: {line}, which can't "
                                     "be found there")
            before, _, after = inside.partition(f"{line}\n")
            inside = after if name == "start-after" else before
        return with_links(inside if found[2] else in_steps(inside), file.parent, known)

    return _INCLUDE.sub(change, with_links(text, page.parent, known))


def _read(app: Sphinx, docname: str, content: list[str]) -> None:
    page = Path(app.env.doc2path(docname))
    if page.suffix == ".md":
        content[0] = included(page, content[0], pages(), lambda file: app.env.note_dependency(str(file)))


def setup(app: Sphinx) -> dict[str, bool]:
    """Has Sphinx read pages so."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
