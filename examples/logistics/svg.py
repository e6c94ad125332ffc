"""Drawing by hand: the few SVG elements that the charts are made of, as text. Everything that is text is escaped here."""

from collections.abc import Iterable
from html import escape


def element(tag: str, content: str = "", **attributes: object) -> str:
    """One element. `content` is markup already; an attribute's underscore stands for a hyphen, `class_` for class."""
    named = "".join(f' {_name(key)}="{escape(_value(value))}"' for key, value in attributes.items())
    return f"<{tag}{named}>{content}</{tag}>" if content else f"<{tag}{named}/>"


def text(words: str, x: float, y: float, anchor: str = "start", class_: str = "label") -> str:
    return element("text", escape(words), x=x, y=y, text_anchor=anchor, class_=class_)


def titled(shape: str, words: str) -> str:
    """A shape, or several, with a tooltip."""
    return element("g", element("title", escape(words)) + shape)


def picture(width: int, height: int, name: str, content: Iterable[str]) -> str:
    """A whole drawing that scales to the width it is given; `name` is read out to those who cannot see it."""
    return element("svg", "".join(content), viewBox=f"0 0 {width} {height}", role="img", aria_label=name)


def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _value(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)
