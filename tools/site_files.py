"""Hook of mkdocs: puts files outside docs/ that pages link to on the site, under repo/.

A page links to a file as it lies in the repository (`../difftrain/grade/README.md`), so the link
works there. On the site, a linked Markdown file becomes a page, and any other file a download. A
link to a file that does not exist stays as it is; mkdocs warns of it, and a strict build fails.
"""

import os
import re
from pathlib import Path
from posixpath import dirname, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

LINK = re.compile(r"(?<=\]\()(?P<path>[^)\s#:]+)(?P<anchor>#[^)\s]*)?(?=\))")


def site_uri(config: MkDocsConfig, target: Path) -> str | None:
    """Where a file of the repository is on the site; None for folders and files elsewhere."""
    docs, root = Path(config.docs_dir), Path(config.config_file_path).parent
    if not target.is_file() or not target.is_relative_to(root):
        return None
    if target.is_relative_to(docs):
        return target.relative_to(docs).as_posix()
    return f"repo/{target.relative_to(root).as_posix()}"


def linked_file(source: Path, link: str) -> Path:
    """The file that a link on the page `source` names; links are relative to their page."""
    return Path(os.path.normpath(source.parent / link))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every file outside docs/ that a page links to, and the files that these link to."""
    pages = [Path(file.abs_src_path or "") for file in files.documentation_pages()]
    while pages:
        source = pages.pop()
        for match in LINK.finditer(source.read_text(encoding="utf-8")):
            target = linked_file(source, match["path"])
            uri = site_uri(config, target)
            if uri is None or files.get_file_from_path(uri) is not None:
                continue
            level = InclusionLevel.NOT_IN_NAV
            files.append(File.generated(config, uri, abs_src_path=str(target), inclusion=level))
            if target.suffix == ".md":
                pages.append(target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write each link as relative to the page's address on the site."""
    source = Path(page.file.abs_src_path or "")

    def on_site(match: re.Match[str]) -> str:
        uri = site_uri(config, linked_file(source, match["path"]))
        if uri is None or files.get_file_from_path(uri) is None:
            return match[0]
        return relpath(uri, dirname(page.file.src_uri)) + (match["anchor"] or "")

    return LINK.sub(on_site, markdown)
