"""What the measurements say: medians, ratios within a round, and tables of them."""

import statistics

# Up to here other programs do not count, in cores.
QUIET = 0.1


def choose_reference(peers, wanted):
    """Whose cost is 1.00: the wanted one, or the first that is no gate."""
    names = [peer.name for peer in peers]
    others = [name for name in names if not name.startswith("gate")]
    return wanted if wanted in names else (others or names)[0]


def summarise(measurements, reference):
    """For each workload and peer the medians over the rounds; the ratio is that to the reference in the same round."""
    cost = {(one["workload"], one["peer"], one["round"]): one["cpu_seconds"] / one["answers"] for one in measurements}
    groups = {}
    for one in measurements:
        groups.setdefault(one["workload"], {}).setdefault(one["peer"], []).append(one)
    return {
        workload: {peer: summarise_one(rows, cost, reference) for peer, rows in peers.items()}
        for workload, peers in groups.items()
    }


def summarise_one(rows, cost, reference):
    ratios = [
        cost[row["workload"], row["peer"], row["round"]] / cost[row["workload"], reference, row["round"]]
        for row in rows
    ]
    summary = {
        "ratio": round(statistics.median(ratios), 4),
        "ratio_least": round(min(ratios), 4),
        "ratio_most": round(max(ratios), 4),
        "cpu_us": round(statistics.median(cost[row["workload"], row["peer"], row["round"]] for row in rows) * 1e6, 3),
        "errors": sum(row["errors"] for row in rows),
        "peak_memory": max(row["peak_memory"] for row in rows),
    }
    for key in ("per_second", "core", "others", "p50_us", "p99_us", "p999_us", "megabytes_per_second"):
        if key in rows[0]:
            summary[key] = round(statistics.median(row[key] for row in rows), 3)
    return summary


# --- Markdown ---------------------------------------------------------------------------------------------------------
def table(head, rows):
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def duration(microseconds):
    return f"{microseconds:.1f} µs" if microseconds < 1000 else f"{microseconds / 1000:.1f} ms"


def markdown(results):
    """All tables; the first is the one of the picture."""
    titles = results["peers"]
    reference = titles[results["reference"]]["title"]
    return "\n".join(
        [
            f"CPU per answer, {reference} = 1.00 (lower is better): {describe(results)}.\n",
            overview(results),
            *(details(results, name) for name in results["summary"]),
            *warnings(results),
        ]
    )


def describe(results):
    """The conditions, in half a sentence."""
    settings, machine = results["settings"], results["machine"]
    return (
        f"{versions(results)}; {machine['processor']}, {machine['system']}; one worker on one core; "
        f"medians of {settings['rounds']} rounds of {settings['seconds']} s"
    )


def versions(results):
    """Each program once: the gate can be there twice."""
    return ", ".join(
        dict.fromkeys(f"{peer['title'].split(',')[0]} {peer['version']}" for peer in results["peers"].values())
    )


def overview(results):
    names = list(results["peers"])
    rows = [
        [results["workloads"][workload]["title"]] + [ratio(summary.get(name)) for name in names]
        for workload, summary in results["summary"].items()
    ]
    return table(["workload", *(results["peers"][name]["title"] for name in names)], rows)


def ratio(summary):
    return f"{summary['ratio']:.2f}" if summary else "-"


def details(results, workload):
    about = results["workloads"][workload]
    requests = about["unit"] == "request"
    rows = []
    for name, one in results["summary"][workload].items():
        rows.append(
            [
                results["peers"][name]["title"],
                f"{one['ratio']:.2f}",
                f"{one['ratio_least']:.2f} to {one['ratio_most']:.2f}",
                duration(one["cpu_us"]),
                f"{one['per_second']:,.0f}" if requests else f"{one['megabytes_per_second']:,.0f} MB",
                duration(one["p99_us"]) if requests else "-",
                f"{one['core']:.2f}",
                f"{one['peak_memory'] / 2**20:.1f} MiB",
            ]
        )
    head = [
        "proxy",
        "ratio",
        "in the rounds",
        f"CPU per {about['unit']}",
        f"{'answers' if requests else 'data'} per second",
        "p99",
        "share of its core",
        "peak memory",
    ]
    return f"### {about['title']}\n\n" + table(head, rows)


def warnings(results):
    """What makes a figure doubtful."""
    found = []
    for workload, summary in results["summary"].items():
        for name, one in summary.items():
            where = f"{results['peers'][name]['title']}, {results['workloads'][workload]['title']}"
            if one["errors"]:
                found.append(f"Errors: {where}: {one['errors']} answers were missing or not 2xx.\n")
    if noise(results) > QUIET:
        found.append(
            f"Noise: other programs took {noise(results):.2f} of the two cores (median); "
            "figures of a quiet machine are better.\n"
        )
    return found


def noise(results):
    """What other programs took meanwhile, in cores."""
    return statistics.median(one["others"] for one in results["measurements"])
