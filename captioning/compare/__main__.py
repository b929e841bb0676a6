"""Compare the scores and captions of two revisions: `python -m captioning.compare A B`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from captioning.base.files import write_text
from captioning.commands.caption import parse_positive_int
from captioning.commands.picture_files import require_writable
from captioning.compare import text
from captioning.compare.changes import compare_revisions, find_moved_captions
from captioning.compare.experiments import experiment_tables, read_experiments
from captioning.compare.page import make_cards, render_page
from captioning.compare.revisions import WORKSPACE, read_revision
from captioning.runtime.process import exit_status
from captioning.runtime.progress import write_stdout

SHOWN = 5  # moved captions in the terminal; the page has more


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    return exit_status(lambda: run(make_parser().parse_args(arguments)), "interrupted")


def run(options: argparse.Namespace) -> int:
    """Print the comparison, write its page, and return the exit status. Raises `UserError`."""
    if options.experiments:
        tables = experiment_tables(read_experiments())
        write_stdout("\n\n".join("\n".join(text.align(*table)) for table in tables) + "\n")
        return 0
    require_writable("--page", options.page)  # before the revisions are read
    names = (options.before, options.after)
    before, after = map(read_revision, names)
    changes = compare_revisions(before, after)
    moved = find_moved_captions(before, after, changes, options.images)
    tables = [text.cider_cells(changes, names), text.score_cells(changes)]
    seeds = max(len(scores) for revision in (before, after) for scores in revision.ciders.values())
    sentences = text.summarise(changes, len(after.references), seeds)
    write_stdout(text.format_text(tables, sentences, moved[:SHOWN], after.references))
    pictures = after.read_pictures(sorted({caption.id for caption in moved})) if moved else {}
    cards = make_cards(moved, after.references, pictures)
    write_text(options.page, render_page(names, tables, sentences, cards))
    print(f"{options.page}: the same with {len(cards)} images", file=sys.stderr)
    return 0


def parse_revision(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty name; give a commit, branch, tag or experiment")
    return text


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m captioning.compare",
        description="Compare the scores and captions of two revisions: commits, branches, tags or experiments.",
    )
    add = parser.add_argument
    add("before", nargs="?", type=parse_revision, default="HEAD", metavar="A", help="a revision (default: %(default)s)")
    add(
        "after",
        nargs="?",
        type=parse_revision,
        default=WORKSPACE,
        metavar="B",
        help="another (default: %(default)s, what lies here)",
    )
    add(
        "--images",
        type=parse_positive_int,
        default=6,
        metavar="N",
        help="captions of each changed row (default: %(default)s)",
    )
    add("--experiments", action="store_true", help="list CIDEr of each row in each experiment instead")
    add("--page", type=Path, default=Path("compare.html"), metavar="FILE", help="the page (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
