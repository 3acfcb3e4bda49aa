"""Markdown of a lab as HTML: no HTML of its own passes, links lead outside or nowhere."""

from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

PARSER = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
OUTSIDE = ("https://", "http://")


def render(text: str) -> Markup:
    """The HTML of a Markdown text. Headings sink by one level: a page has a first heading already."""
    tokens = PARSER.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + 1, 6)}"
        if token.children:
            token.children = keep_links_outside(token.children)
    html: str = PARSER.renderer.render(tokens, PARSER.options, {})
    # A wide table scrolls by itself, not the page.
    return Markup(html.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>"))  # noqa: S704 - the parser escapes


def keep_links_outside(tokens: Sequence[Token]) -> list[Token]:
    """A link to another file of the checkout becomes its text: the pages show no files."""
    kept: list[Token] = []
    is_open: list[bool] = []
    for token in tokens:
        if token.type == "link_open":
            is_open.append(str(token.attrGet("href")).startswith(OUTSIDE))
            token.attrSet("target", "_blank")
            token.attrSet("rel", "noopener noreferrer")
            keeps = is_open[-1]
        else:
            keeps = is_open.pop() if token.type == "link_close" else True
        if keeps:
            kept.append(token)
    return kept
