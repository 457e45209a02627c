"""A finished run as a dataset folder that others load, with a dataset card. Nothing is lost by it: the run stays."""

import json
import re
from pathlib import PurePosixPath
from typing import Any, Literal

import jinja2
import yaml

from visionprefer.errors import InputError
from visionprefer.judging import joint_rubric, rubric
from visionprefer.layouts import Layout, hpdv2, huggingface, pickapic
from visionprefer.run_folder import RunFolder
from visionprefer.statistics import Table, read_statistics, tables
from visionprefer.store import Store

LAYOUTS = {"hf": huggingface, "pickapic": pickapic, "hpdv2": hpdv2}
MARK = "export.json"  # a folder that holds it is an earlier export, and may be replaced


def export(run: RunFolder, to: Literal["hf", "pickapic", "hpdv2"], out: str) -> list[str]:
    """Write a dataset folder: the data in one of the published forms, and README.md, its dataset card.

    Memory holds the run's tables, but no more images than one file of the dataset does.

    Args:
        run: a finished run.
        to: `hf` a Hugging Face dataset of all tables; `pickapic` Pick-a-Pic v2's columns; `hpdv2` HPD v2's files.
        out: a folder, local or s3://, gs://: new, empty, or an earlier export, which is replaced.

    Returns:
        Names of the files that were written, relative to `out`.

    Raises:
        InputError: if the run is not finished, has no preferences, or `out` holds other things.
    """
    run.check_finished()
    if not run.preferences().num_rows:
        raise InputError(f"{run.store.root} has no preferences: no prompt has two images that were judged")
    store = Store(out)
    _clear(store)
    store.write(MARK, json.dumps({"format": 1, "layout": to, "run": run.recipe.name}, indent=1).encode())
    layout = LAYOUTS[to].write(run, store)
    store.write("README.md", dataset_card(run, layout).encode())
    return sorted([MARK, "README.md", *layout.files])


def dataset_card(run: RunFolder, layout: Layout) -> str:
    """The dataset card: a YAML header for the Hugging Face hub, and what a reader should know, in Markdown."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("visionprefer"),
        autoescape=False,  # noqa: S701  it writes Markdown
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"table": _markdown_table, "without_place": _without_places}
    counts = run.counts()
    asked, digest = rubric.question("{prompt}"), rubric.rubric_digest()
    if run.recipe.judge.mode == "joint":
        asked, digest = joint_rubric.question("{prompt}", 2), joint_rubric.rubric_digest()
    return environment.get_template("dataset_card.md").render(
        header=_yaml(_header(run, layout)),
        run=run,
        recipe=_yaml(_without_places(run.recipe.model_dump(mode="json"))),
        images=counts["images"],
        replies=counts["replies"],
        layout=layout,
        tables=tables(read_statistics(run)),
        rubric=asked,
        rubric_digest=digest,
        lineage=_lineage(run),
        scores=rubric.SCORES,
    )


def _clear(store: Store) -> None:
    """Delete an earlier export, so that no file of it is taken for one of the new."""
    names = store.names("")
    if not names:
        return
    try:
        earlier = LAYOUTS[json.loads(store.read(MARK))["layout"]]
    except (FileNotFoundError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"--out {store.root}: the folder holds other things ({', '.join(names[:3])}), and no earlier export. "
            "Write a new folder"
        ) from error
    for folder in earlier.FOLDERS:
        for name in store.sizes(folder):
            store.delete(f"{folder}/{name}")
    for name in ("README.md", *earlier.FILES):
        if name in names:
            store.delete(name)


def _header(run: RunFolder, layout: Layout) -> dict[str, Any]:
    """The YAML header, as the hub documents it for dataset cards."""
    images = run.counts()["images"].done
    bounds = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
    size = next((name for most, name in bounds.items() if images < most), "n>1M")
    configs = [config | ({"default": True} if config is layout.configs[0] else {}) for config in layout.configs]
    return {
        "pretty_name": run.recipe.name,
        "license": "other",
        "task_categories": ["text-to-image"],
        "tags": ["preference", "ai-feedback", "text-to-image", "visionprefer"],
        "size_categories": [size],
        "configs": configs,
    }


def _lineage(run: RunFolder) -> dict[str, str]:
    """Digests of everything that the dataset follows from."""
    models = run.images.table(["model", "model_digest"]).group_by(["model", "model_digest"]).aggregate([]).to_pylist()
    digests = {"plan": run.manifest["plan"]["digest"]}
    digests |= {f"model {model['model']}": model["model_digest"] for model in models if model["model_digest"]}
    digests |= {
        f"judge {name}": run.manifest["judges"][judge]["digest"] for judge, name in run.counted_judges().items()
    }
    digests |= {"rubric": ", ".join(run.replies.table(["rubric_digest"])["rubric_digest"].unique().to_pylist())}
    return digests | {"derived tables": run.manifest["derived"]["digest"]}


def _yaml(data: dict[str, Any]) -> str:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def _without_places(data: Any) -> Any:
    """The recipe without the folders of the machine it ran on, which are nobody else's business."""
    if isinstance(data, dict):
        return {key: _without_places(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_without_places(value) for value in data]
    if isinstance(data, str) and re.match(r"/|~|[A-Za-z]:\\", data):
        return PurePosixPath(data.replace("\\", "/")).name
    return data


def _markdown_table(table: Table) -> str:
    rows = [table.columns, ["---"] + ["---:"] * (len(table.columns) - 1), *table.rows]
    return "\n".join("| " + " | ".join(map(_markdown_cell, row)) + " |" for row in rows)


def _markdown_cell(text: str) -> str:
    """Reasons of failures may hold anything, and must not end the cell or begin a tag."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
