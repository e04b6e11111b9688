"""What the site needs besides docs/: pages of other folders, links to files that are no pages, and the package.

mkdocs loads this module as a hook. On a code host, links of the pages lead to files of the repository; in the site, a
link to a file that is no page becomes its text.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "docker/README.md": "docker.md",
    "manifests/README.md": "manifests.md",
}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def on_startup(command: str, dirty: bool) -> None:
    """Put the package together as it is installed, so that its docstrings are found by their public names."""
    package = ROOT / "build" / "package" / "triptych"
    shutil.rmtree(package.parent, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "triptych", package, ignore=ignored)
    for room in ("pipeline", "extractors"):
        shutil.copytree(ROOT / room, package / room, ignore=ignored)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are outside of docs/."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point links at pages; leave the text alone of links to other files.

    Raises
    ------
    PluginError
        A link leads nowhere.
    """
    own = {page_name: source for source, page_name in OUTSIDE.items()}
    source = ROOT / own.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    parts, end = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [_linked(markdown[end : fence.start()], source), fence.group()]
        end = fence.end()
    return "".join([*parts, _linked(markdown[end:], source)])


def _linked(text: str, source: Path) -> str:
    return _LINK.sub(lambda link: _in_site(link, source), text)


def _in_site(link: re.Match[str], source: Path) -> str:
    image, text, target = link.groups()
    path, hash_sign, anchor = target.partition("#")
    if not path or "://" in path:
        return link.group()
    file = (source.parent / path).resolve()
    if not file.exists():
        raise PluginError(f"{source.relative_to(ROOT)}: the link to {target} leads nowhere")
    name = str(file.relative_to(ROOT))
    in_site = OUTSIDE.get(name, name.removeprefix("docs/") if name.startswith("docs/") else None)
    return text if in_site is None else f"{image}[{text}]({in_site}{hash_sign}{anchor})"
