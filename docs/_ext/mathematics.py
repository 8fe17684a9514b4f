"""Formulas as MathML, which browsers draw by themselves: nothing is loaded, and no script runs."""

import html
import re
import unicodedata

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

# What latex2mathml takes for a letter, for an operator that stands apart, or for a fence that grows.
_SIGNS = (
    ("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>"),
    ("<mi>&#x000B1;</mi>", "<mo>&#x000B1;</mo>"),
    ("<mo>&#x0221E;</mo>", "<mi>&#x0221E;</mi>"),
    ("<mo>&#x02207;</mo>", '<mi mathvariant="normal">&#x02207;</mi>'),
    *((f"<mo>&#x{code};</mo>", f'<mo stretchy="false" lspace="0" rspace="0">&#x{code};</mo>')
      for code in ("02016", "0007C", "0002F")),
)
_WORD = re.compile(r"<m([io])>([A-Za-z]{2,})</m\1>(?=(<mo stretchy=\"false\">&#x00028;)?)")


def mathml(formula: str, *, is_block: bool) -> str:
    """Returns a formula of LaTeX as an element of MathML.

    Raises:
        ExtensionError: it can't be read, or has a command that isn't known, whose name would be shown.
    """
    formula = re.sub(r"\\mathrel\{([^{}]*)\}", r"\1", formula)
    try:
        made = convert(formula, display="block" if is_block else "inline")
    except Exception as error:
        raise ExtensionError(f"the formula {formula!r} can't be read ({error!r})") from error
    for sign, other in ((r"\_", "_"), *_SIGNS):
        made = made.replace(sign, other)
    if unknown := re.search(r"\\[A-Za-z]+", html.unescape(made)):
        raise ExtensionError(f"the formula {formula!r} has {unknown[0]}, which isn't known: write it in "
                             "another way")
    # Letters of other alphabets are characters of their own: browsers don't look at `mathvariant`.
    made = re.sub(r'<mi mathvariant="(double-struck|script)">([A-Z])</mi>', _letter, made)
    # log and max stand apart from what is before them, and from what follows if it isn't in brackets.
    return _WORD.sub(lambda found: '<mo form="prefix" lspace="0.167em" rspace="{}">{}</mo>'.format(
        "0" if found[3] else "0.167em", found[2]), made)


def _letter(found: re.Match[str]) -> str:
    name = f"{found[1].upper()} CAPITAL {found[2]}"
    try:
        return f"<mi>{unicodedata.lookup(f'MATHEMATICAL {name}')}</mi>"
    except KeyError:  # those that were there before mathematics had its own
        return f"<mi>{unicodedata.lookup(name)}</mi>"


def _inline(translator: nodes.NodeVisitor, node: nodes.math) -> None:
    translator.body.append(mathml(node.astext(), is_block=False))
    raise nodes.SkipNode


def _block(translator: nodes.NodeVisitor, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="formula">{mathml(node.astext(), is_block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Has Sphinx write formulas so, by the setting html_math_renderer."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
