"""The documents: links and commands, and the site that Sphinx makes of them."""

import contextlib
import html.parser
import importlib
import inspect
import io
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import urllib.parse
import zlib
from functools import cache
from pathlib import Path

import pytest

import jaxgan
from experiments import commands, launch, opening

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
DOCUMENTS = [*PAGES, *sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("experiments/*.md")),
             *sorted(ROOT.glob("benchmarks/*.md"))]
FENCES = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\[\]]*\]\(([^()\s]+)\)")


def prose(path):
    """A document without its blocks of code between fences."""
    return FENCES.sub("", path.read_text(encoding="utf-8"))


@cache
def anchors(path):
    """The anchors of a document's headings, as GitHub makes them."""
    found = set()
    for title in re.findall(r"^#+ +(.*)$", prose(path), re.MULTILINE):
        anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        number = 0
        while (name := f"{anchor}-{number}" if number else anchor) in found:
            number += 1
        found.add(name)
    return found


def public_names():
    """(module, name) of each function and class that a public module has, or offers by `__all__`."""
    for module in ("jaxgan", *(m.name for m in pkgutil.walk_packages(jaxgan.__path__, "jaxgan."))):
        if "._" in module:
            continue
        members = vars(importlib.import_module(module))
        for name in members.get("__all__", [name for name in members if not name.startswith("_")]):
            member = members[name]
            is_own = "__all__" in members or getattr(member, "__module__", "") == module
            if is_own and (inspect.isfunction(member) or inspect.isclass(member)) and member.__doc__:
                yield module, name


# The documents as they are.

@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_are_there(path):
    """As on GitHub, where the site's own syntax doesn't count."""
    lost = []
    for target in LINK.findall(prose(path)):
        if re.match(r"\w+:", target):
            continue
        place, _, anchor = target.partition("#")
        file = (path.parent / place).resolve() if place else path
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            lost.append(target)
    assert lost == []


def test_every_page_is_in_the_contents_once():
    def below(page):
        blocks = re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        for name in (line for block in blocks for line in block.split("\n")):
            if name and not name.startswith(":"):
                path = page.parent / f"{name}.md"
                yield path if path.exists() else path.with_suffix(".ipynb")

    found, queue = [], [DOCS / "index.md"]
    while queue:
        page = queue.pop()
        found.append(page)
        queue += below(page) if page.suffix == ".md" else ()
    assert sorted(path for path in found if path.suffix == ".md") == PAGES
    assert len({*found}) == len(found)


def test_every_module_stands_in_the_reference():
    """Unless all of its names are those of its package."""
    text = "".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    named = {*re.findall(r"^\.\. (?:automodule|currentmodule):: ([\w.]+)$", text, re.MULTILINE)}
    above = {}
    for module, name in public_names():
        package = importlib.import_module(module.rpartition(".")[0] or module)
        is_above = name in getattr(package, "__all__", ()) and (
            getattr(package, name) is getattr(importlib.import_module(module), name))
        above[module] = above.get(module, True) and is_above and package is not jaxgan
    assert {module for module, is_above in above.items() if not is_above} - named == set()


def commands_of_pages():
    for path in PAGES:
        text = re.sub(r"\\\n\s*", "", path.read_text())
        for name, rest in re.findall(r"python -m experiments\.(\w+)([^\n`#|&;]*)", text):
            if name != "NAME" and not re.search(r"\.\.\.|\$|--help|--config", rest):
                yield name, " ".join(rest.split(", ")[0].split())


@pytest.mark.filterwarnings("ignore:decay_steps is:UserWarning")  # the run to go on with isn't there
@pytest.mark.parametrize(("name", "words"), sorted({*commands_of_pages()}))
def test_the_commands_of_the_pages_parse(name, words):
    words = shlex.split(re.sub(r"\b(?:N|SEED)\b", "1", words))
    if name in commands.experiments():
        launch.parse(opening.load(name), words)
        return
    assert name in commands.tools()
    import tyro
    options = importlib.import_module(f"experiments.{name}").Options
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        tyro.cli(options, args=words, return_unknown_args=name == "import_weights")


def test_the_example_of_the_front_page_runs(tmp_path, monkeypatch):
    code, = re.findall(r"^```python\n(.*?)^```", (DOCS / "index.md").read_text(),
                       re.MULTILINE | re.DOTALL)
    assert "steps=3000" in code
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(compile(code.replace("steps=3000", "steps=2, devices=1"), "docs/index.md", "exec"), found)
    assert found["images"].shape == (64, 8, 8, 1)
    assert (abs(found["images"]) <= 1).all()
    assert (tmp_path / "runs" / "first" / "result.json").exists()


def test_the_layers_are_those_that_are_checked():
    from tests.test_layering import ORDER
    table = (DOCS / "house.md").read_text().split("## The layers")[1].split("## ")[0]
    rows = re.findall(r"^\| [a-z ]+ \| ((?:`\w+` ?)+) \|", table, re.MULTILINE)
    assert tuple(re.findall(r"\w+", " ".join(rows))) == ORDER


# What makes the site.

@pytest.fixture(scope="module")
def extensions():
    pytest.importorskip("sphinx")
    pytest.importorskip("latex2mathml")
    sys.path.insert(0, str(DOCS / "_ext"))
    yield tuple(importlib.import_module(name) for name in ("mathematics", "repository", "reference"))
    sys.path.remove(str(DOCS / "_ext"))


@pytest.mark.parametrize(("formula", "parts"), [
    (r"\mathbb E\log\sigma(D(x))", ("<mi>\U0001d53c</mi>", ">log</mo>", "<mi>&#x003C3;</mi>")),
    (r"z \sim \mathcal N(0, I)", ("<mo>&#x0223C;</mo>", "<mi>\U0001d4a9</mi>")),
    (r"\mathbb R", ("<mi>\u211d</mi>",)),
    (r"\tfrac12\lVert x\rVert^2", ("<mfrac><mn>1</mn><mn>2</mn></mfrac>", "&#x02016;</mo><mn>2</mn>")),
    (r"\text{ema\_decay} \mathrel{+}= 1", ("<mtext>ema_decay</mtext>", "<mo>&#x0002B;</mo>"))])
def test_formulas_are_mathml(extensions, formula, parts):
    import xml.etree.ElementTree as ElementTree
    made = extensions[0].mathml(formula, is_block=False)
    assert ElementTree.fromstring(made).tag.endswith("math")
    assert all(part in made for part in parts), made


def test_a_formula_that_cant_be_shown_ends_the_build(extensions):
    with pytest.raises(Exception, match=r"\\unknown, which isn't known: write it in another way"):
        extensions[0].mathml(r"x + \unknown", is_block=False)


def test_links_of_the_repository_become_the_sites(extensions):
    change, known = extensions[1].with_links, extensions[1].pages()
    here = ROOT / "experiments"
    assert change("[docs/shown.md](../docs/shown.md#packs) x", here, known) == "[](/shown.md#packs) x"
    assert change("[more](../docs/shown.md)", here, known) == "[more](/shown.md)"
    assert change("[R](../benchmarks/RESULTS.md#a)", here, known) == "[R](/results/speed.md#a)"
    assert change("[`flags`](flags.py), [x](#y)", here, known) == "`flags`, [x](#y)"
    assert change("![a](../docs/digits.png)", here, known) == "![a](/digits.png)"
    for same in ("[a](https://b.c/d)", "[nowhere](no/where.md)", "```\n[a](flags.py)\n```"):
        assert change(same, here, known) == same


def test_headings_go_down_by_one(extensions):
    text = "# A\n### B\n```\n# no\n```\n# C\n## D\n# E"
    assert extensions[1].in_steps(text) == "# A\n## B\n```\n# no\n```\n## C\n### D\n## E"


def test_docstrings_mean_what_they_say(extensions):
    as_rst = extensions[2].as_rst
    assert as_rst("`a.b` of |x| and *args, `E[x] -\n1`s") == (
        r":py:obj:`a.b` of \|x\| and \*args, ``E[x] -" + "\n" + r"1``\ s")
    assert as_rst("Sizes:\n\n    `a`  1\n     |b| 2\n\nThen `c`.") == (
        "Sizes::\n\n    `a`  1\n     |b| 2\n\nThen :py:obj:`c`.")


def test_signatures_are_as_they_are_written(extensions):
    from jaxgan.losses import AdversarialLoss, hinge
    from jaxgan.steps import generator_step
    signature = extensions[2].signature
    assert signature(hinge) == ("(margin: float=1.0)", "~jaxgan.losses.AdversarialLoss")
    assert signature(AdversarialLoss)[0].endswith("across_batch: bool = False, "
                                                  "share: optax.Schedule | None = None)")
    arguments, returns = signature(generator_step)
    assert "key: ~jaxgan.types.Key, *, axis_name: str | None=None" in arguments
    assert returns == "tuple[~jaxgan.gan.GANState, ~jaxgan.types.Metrics]"


def test_a_notebook_that_is_missing_is_said(extensions, tmp_path):
    pytest.importorskip("myst_nb")
    shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("_build", "notebooks", "api"))
    done = built(tmp_path / "docs", tmp_path / "out", PYTHONPATH=str(ROOT))
    assert done.returncode != 0
    assert "docs/notebooks lacks first_gan.ipynb" in done.stderr


def built(source, out, *words, **variables):
    """What sphinx-build came to."""
    return subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", *words, "-b", "html", str(source),
         str(out)], cwd=ROOT, capture_output=True, text=True, timeout=1800,
        env={**os.environ, "XLA_FLAGS": "", **variables})


# The site.

@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, made anew, notebooks and all."""
    for name in ("sphinx", "myst_nb", "furo", "sphinx_copybutton", "latex2mathml"):
        pytest.importorskip(name)
    out = tmp_path_factory.mktemp("site")
    done = built(DOCS, out / "html", "-d", str(out / "doctrees"))
    assert done.returncode == 0, done.stderr[-4000:]
    return out / "html"


class Elements(html.parser.HTMLParser):
    """What a page links to, what it loads, and its anchors."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.ids = [], [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload", "shortcut icon"):
            self.loads.append(given["href"])
        elif given.get("src"):
            self.loads.append(given["src"])


@pytest.mark.slow
def test_links_and_pictures_of_the_site_are_there(site):
    pages = {path: Elements(path) for path in site.rglob("*.html")}
    lost, outside = set(), set()
    for path, page in pages.items():
        for target in (*page.links, *page.loads):
            parts = urllib.parse.urlsplit(target)
            if parts.scheme in ("http", "https") or target.startswith("//"):
                outside |= {target} if target in page.loads else set()
                continue
            if parts.scheme:
                continue
            file = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
            if not file.is_file() or (parts.fragment and file in pages and urllib.parse.unquote(
                    parts.fragment) not in pages[file].ids):
                lost.add((str(path.relative_to(site)), target))
    assert (lost, outside) == (set(), set())
    assert not (site / "_downloads").exists()  # a link to a source that the site hasn't
    loaded = [path for path in site.rglob("*.css")
              if re.search(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", path.read_text())]
    assert loaded == []


@pytest.mark.slow
def test_every_public_name_is_in_the_reference(site):
    """By one of the modules that it can be imported from, and by jaxgan if that is one of them."""
    data = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    known = {line.split(" ", 1)[0] for line in zlib.decompress(data).decode().splitlines()}
    names = {}
    for module, name in public_names():
        member = getattr(importlib.import_module(module), name)
        names.setdefault(id(member), set()).add(f"{module}.{name}")
    assert len(names) > 400
    assert [some for some in names.values() if not some & known] == []
    assert {f"jaxgan.{name}" for name in jaxgan.__all__} <= known


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_the_site_in_a_browser(site, browser, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    said, asked = [], []
    page.on("console", lambda told: said.append(told.text) if told.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("requestfailed", lambda request: said.append(request.url))
    page.on("request", lambda request: asked.append(request.url))
    for path in sorted(site.rglob("*.html")):
        page.goto(path.as_uri())
        where = str(path.relative_to(site))
        assert page.evaluate("document.documentElement.scrollWidth") <= width, where
        blown = page.evaluate("""[...document.querySelectorAll('article img')].filter(i =>
            !i.complete || i.clientWidth > i.naturalWidth + 1).map(i => i.src)""")
        assert blown == [], where
    page.goto((site / "equations.html").as_uri())
    shown = page.evaluate("""[...document.querySelectorAll('math')].map(
        m => [m.getBoundingClientRect().width, m.getBoundingClientRect().height])""")
    assert len(shown) > 100
    assert all(width > 4 and 5 < height < 120 for width, height in shown)
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    page.close()
