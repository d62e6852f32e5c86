"""A management command whose description is translated when it is shown, not when its module is imported."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser


class DescribedCommand(BaseCommand):
    """`help` may be a lazy translation: argparse folds descriptions and takes nothing but text for that."""

    help: Any = ""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """As Django's."""
        self.help = str(self.help)
        return super().create_parser(prog_name, subcommand, **kwargs)
