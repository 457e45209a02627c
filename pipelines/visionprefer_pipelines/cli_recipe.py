"""`visionprefer recipe`: look at recipes before running them."""

import re
from pathlib import Path
from typing import Annotated

import typer

from visionprefer.recipe_file import load_any_recipe, recipe_schema
from visionprefer.reward.recipe import AblationRecipe
from visionprefer_pipelines.cli_reward import variants_of
from visionprefer_pipelines.terminal import RecipeArgument, Set, console_of, path_of, shipped_recipes

recipes = typer.Typer(no_args_is_help=True, help="Look at recipes before running them.")


@recipes.command("list")
def recipe_list() -> None:
    """List the recipes that come with the package."""
    from rich.table import Table

    table = Table("recipe", "what it does")
    for name, file in shipped_recipes().items():
        comment = " ".join(re.findall(r"^# *(.*)$", file.read_text(encoding="utf-8").partition("\nname:")[0], re.M))
        table.add_row(name, re.split(r"(?<=[.:]) ", comment)[0].rstrip(":."))
    console_of().print(table, soft_wrap=False)


@recipes.command("show")
def recipe_show(recipe: RecipeArgument, set_: Set = None) -> None:
    """Print a recipe with every field, defaults filled in."""
    import yaml

    found = load_any_recipe(path_of(recipe), set_)
    typer.echo(yaml.safe_dump(found.model_dump(mode="json"), sort_keys=False, allow_unicode=True), nl=False)


@recipes.command("check")
def recipe_check(
    recipe: RecipeArgument,
    set_: Set = None,
    cluster: Annotated[
        Path | None,
        typer.Option(help="A file like cluster.yaml or kuberay/run.yaml: could such a cluster ever place all actors?"),
    ] = None,
) -> None:
    """Check a recipe of any kind, and that its prompts and models are there."""
    from visionprefer_pipelines.cluster_file import check_cluster
    from visionprefer_pipelines.demand import stages_of
    from visionprefer_pipelines.preparation import check

    console, found = console_of(), load_any_recipe(path_of(recipe), set_)
    for settings in variants_of(found).values() if isinstance(found, AblationRecipe) else [found]:
        if cluster:
            for sentence in check_cluster(stages_of(settings), cluster):
                console.print(sentence)
        for sentence in check(settings):
            console.print(sentence)
    console.print(f"{recipe}: this recipe can be run")


@recipes.command("schema")
def recipe_schema_command() -> None:
    """Print the JSON schema of recipes, for editors that complete and check YAML."""
    typer.echo(recipe_schema())
