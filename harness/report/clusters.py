"""The table of errors of items that share a source, and what it warns of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.analysis.clusters import FEW_CLUSTERS, MUCH_LARGER, ClusterLine
from harness.analysis.columns import Group
from harness.analysis.findings import Findings
from harness.report.numbers import number
from harness.report.records import head_record
from harness.report.render import Table, blocks, by_group


def cluster_tables(findings: Findings) -> list[Table]:
    """Clustered standard errors beside the plain ones, once per group."""
    return [_clusters(*own) for own in by_group(findings.noise.clusters).items()]


def _clusters(group: Group, found: Sequence[ClusterLine]) -> Table:
    lines = [
        [
            *(one.model, one.name, group.head(one.column), one.source),
            *(str(one.num_clusters), str(one.num_items), str(one.num_seeds)),
            *(number(error, ".2f", 100) for error in (one.plain, one.clustered)),
            number(one.ratio, ".2f") + " !" * one.is_much_larger,
        ]
        for one in found
    ]
    few = any(one.num_clusters < FEW_CLUSTERS for one in found)
    return Table(
        name="clusters" + group.suffix(),
        title="Errors of items that share a source",
        subtitle=group.title,
        header=(
            *("Model", "Score or difference", "Column", "Shared"),
            *("Clusters", "Items", "Seeds", "SE", "Clustered SE", "Ratio"),
        ),
        rows=blocks(lines, 2),
        notes=tuple(cluster_warnings(found)),
        caption=(
            "Points. Clustered: the sums of squares are those of clusters of items (Miller, "
            "2411.00640), of k seeds for the items' means and for the rest alike; SE: each item "
            "its own cluster. Both are of these seeds alone, without what other comparisons tell "
            "of the seeds. Of an average an item that shares nothing is a cluster of its own."
            + f" Fewer than {FEW_CLUSTERS} clusters: the clustered error comes out "
            "too small." * few,
        ),
        num_text_columns=4,
    )


def cluster_warnings(lines: Iterable[ClusterLine]) -> list[str]:
    """What a reader of the plain errors must know."""
    found: dict[str, list[float]] = {}
    for one in lines:
        if one.is_much_larger and one.ratio:
            found.setdefault(one.column, []).append(one.ratio)
    return [
        f"! {column}: errors of items that share a source are up to {max(ratios):.2f} times the "
        f"plain ones in {len(ratios)} rows (more than {MUCH_LARGER:g} times): the plain intervals "
        "there are too narrow."
        for column, ratios in found.items()
    ]


def cluster_records(findings: Findings) -> list[dict[str, object]]:
    """Plain and clustered errors as tidy records for their CSV; errors of scores of 0..1."""
    return [
        {
            **head_record(one.group, one.model),
            "name": one.name,
            "column": one.column,
            "shared": one.source,
            "num_clusters": one.num_clusters,
            "num_items": one.num_items,
            "num_seeds": one.num_seeds,
            "stderr": one.plain,
            "clustered_stderr": one.clustered,
        }
        for one in findings.noise.clusters
    ]
