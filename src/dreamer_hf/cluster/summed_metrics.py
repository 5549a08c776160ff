"""The metrics of several engines as those of one server."""

from collections.abc import Iterable

from prometheus_client.parser import text_string_to_metric_families

OF_ONE_PROCESS = ("process_start_time_seconds", "process_max_fds")
"""Metrics whose sum says nothing."""
Sums = dict[tuple, float]
"""Values by sample: (family, type, help, name of the sample, labels)."""


def read_metrics(text: str) -> Sums:
    """Return the samples of one process, given in Prometheus' text format."""
    return {
        (
            family.name,
            family.type,
            family.documentation,
            sample.name,
            tuple(sorted(sample.labels.items())),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if family.name not in OF_ONE_PROCESS and not sample.name.endswith("_created")
    }


def counters_only(sums: Sums) -> Sums:
    """Return the samples that only grow, which stay part of the sum when their engine is gone."""
    return {key: value for key, value in sums.items() if key[1] in ("counter", "histogram")}


def add_metrics(parts: Iterable[Sums]) -> Sums:
    """Return the sum of the samples of several processes."""
    total: Sums = {}
    for part in parts:
        for key, value in part.items():
            total[key] = total.get(key, 0.0) + value
    return total


def write_metrics(sums: Sums) -> str:
    """Return samples in Prometheus' text format."""
    lines, last = [], None
    for family, kind, help_text, name, labels in sorted(sums, key=lambda key: key[0]):
        if family != last:
            shown = f"{family}_total" if kind == "counter" else family
            lines += [f"# HELP {shown} {help_text}", f"# TYPE {shown} {kind}"]
            last = family
        listed = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels)
        value = sums[family, kind, help_text, name, labels]
        lines.append(f"{name}{{{listed}}} {value}" if listed else f"{name} {value}")
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


__all__ = ["Sums", "add_metrics", "counters_only", "read_metrics", "write_metrics"]
