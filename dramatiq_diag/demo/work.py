"""Does the work of the demo's actors: functions whose time or memory is worth a look."""

from __future__ import annotations

import ast
import asyncio
import io
import sqlite3
import tempfile
import tokenize
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from dramatiq.logging import get_logger
from dramatiq.middleware import CurrentMessage

from .sources import read_source, served_sources, source_files

_logger = get_logger(__name__)

_QUERIES = (
    "SELECT name, count(*) AS times FROM definitions GROUP BY name ORDER BY times DESC, name LIMIT 10",
    "SELECT count(*) FROM definitions AS a JOIN definitions AS b ON a.name = b.name AND a.module < b.module",
    "SELECT module, max(line) FROM definitions WHERE documented = 0 GROUP BY module ORDER BY 2 DESC LIMIT 10",
    "SELECT count(*) FROM definitions WHERE name LIKE '%read%' OR name LIKE '%write%'",
)


class Definitions(ast.NodeVisitor):
    """Collects the classes and functions of a module: name, line, and whether there is a docstring."""

    def __init__(self) -> None:
        self.found: list[tuple[str, int, bool]] = []

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._add(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._add(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._add(node)

    def _add(self, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.found.append((node.name, node.lineno, ast.get_docstring(node, clean=False) is not None))
        self.generic_visit(node)


class TokenCache:
    """Caches the tokens of modules, and never removes any."""

    def __init__(self) -> None:
        self.tokens: dict[Path, list[tokenize.TokenInfo]] = {}

    def get(self, path: Path) -> list[tokenize.TokenInfo]:
        """Returns: The tokens of a module."""
        if path not in self.tokens:
            self.tokens[path] = list(tokenize.generate_tokens(io.StringIO(read_source(path)).readline))
        return self.tokens[path]


def index_sources(count: int = 45) -> int:
    """Parses modules and walks their syntax trees. Returns: How many definitions they have."""
    return sum(len(_definitions(path)) for path in source_files(count))


def search_index(count: int = 40) -> int:
    """Writes an SQLite index of the definitions in modules, and queries it. Returns: The number of rows."""
    with tempfile.TemporaryDirectory() as directory, closing(sqlite3.connect(Path(directory) / "index.db")) as index:
        _fill_index(index, count)
        _logger.info("The index has the definitions of %d modules.", count)
        return sum(len(index.execute(query).fetchall()) for _ in range(5) for query in _QUERIES)


def fill_cache(count: int = 80) -> int:
    """Fills a cache that grows until the task ends. Returns: The number of its tokens."""
    cache = TokenCache()
    return sum(len(cache.get(path)) for path in source_files(count))


async def fetch_sources(count: int = 50) -> int:
    """Fetches modules from an HTTP server on the loopback interface, one after the other. Returns: The bytes."""
    with served_sources() as port:
        sizes_bytes = [len(await _fetch(port, path.name)) for path in source_files(count)]
    return sum(sizes_bytes)


def find_definition(name: str = "no_such_function", count: int = 30) -> Path:
    """Looks for a definition.

    Returns:
      The first module with the definition.

    Raises:
      LookupError: When no module has it, as always in the demo.
    """
    _logger.info("Looks for %r in %d modules.", name, count)
    for path in source_files(count):
        if any(found == name for found, _, _ in _definitions(path)):
            return path
    raise LookupError(f"None of {count} modules defines {name!r}.")


def deliver_report(count: int = 200) -> int:
    """Counts lines, then delivers the report to a receiver that is down at the first attempt.

    Returns:
      The number of lines.

    Raises:
      ConnectionError: On the first attempt; the retry succeeds.
    """
    line_count = sum(len(read_source(path).splitlines()) for path in source_files(count))
    message = CurrentMessage.get_current_message()
    _logger.info("Counted %d lines.", line_count)
    if message is not None and message.options.get("retries", 0) == 0:
        raise ConnectionError("The receiver of the report is not up yet.")
    _logger.info("The report is delivered.")
    return line_count


def _definitions(path: Path) -> list[tuple[str, int, bool]]:
    visitor = Definitions()
    visitor.visit(ast.parse(read_source(path), filename=str(path)))
    return visitor.found


def _fill_index(index: sqlite3.Connection, count: int) -> None:
    index.execute("CREATE TABLE definitions (module TEXT, name TEXT, line INTEGER, documented INTEGER)")
    with index:
        index.executemany("INSERT INTO definitions VALUES (?, ?, ?, ?)", _rows(count))
        index.execute("CREATE INDEX by_name ON definitions (name, module)")


def _rows(count: int) -> Iterator[tuple[str, str, int, bool]]:
    for path in source_files(count):
        for found in _definitions(path):
            yield (path.stem, *found)


async def _fetch(port: int, name: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET /{name} HTTP/1.0\r\n\r\n".encode())
        await writer.drain()
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
        await writer.wait_closed()
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise ConnectionError(f"The server did not give {name}.")
    return body
