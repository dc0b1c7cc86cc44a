"""What was typed, kept so that it can be handed on to other commands."""

import click

OF_ALL = ("sources", "output", "each", "jobs", "as_json")  # what --each itself uses


class WordsKept(click.Command):
    """A command that remembers what was typed, so that it can be given to others."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["gcn.words"] = list(args)
        return super().parse_args(ctx, args)


def words_for_each(ctx: click.Context) -> list[str]:
    """The options that were typed, for a command of its own for every picture."""
    given, _, _ = ctx.command.make_parser(ctx).parse_args(list(ctx.meta["gcn.words"]))
    words: list[str] = []
    for option in ctx.command.params:
        if not isinstance(option, click.Option) or option.name not in given:
            continue
        if option.name in OF_ALL:
            continue
        value, name = given[option.name], option.opts[-1]
        if option.is_flag:
            words.append(name if value else option.secondary_opts[0])
        else:
            words += [name, str(value)]
    return words
