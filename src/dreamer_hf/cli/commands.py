"""What subcommands do that are more than one function of the library."""

import signal


def play(options) -> None:
    """Play a world; a shutdown, too, finishes the recording."""
    from ..play import play

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    play(options)


def record(options) -> str:
    """Record PushT."""
    from ..pusht.record import record as record_play

    return f"recorded {record_play(options)}"


def convert(options):
    """Convert data, on a cluster if asked to."""
    if options.ray is not None:
        from ..cluster.converting import convert_on_cluster

        return convert_on_cluster(options)
    from ..data.convert_command import run_converter

    return run_converter(options)


def serve(options) -> None:
    """Serve a world, from a cluster if asked to."""
    if options.ray is not None:
        from ..cluster.serving import serve_on_cluster

        serve_on_cluster(options)
        return
    from ..serve import serve

    serve(options)


def encode_latents(options) -> str | None:
    """Encode latents, on a cluster if asked to."""
    if options.ray is not None:
        from ..cluster.encoding import encode_on_cluster

        return encode_on_cluster(options)
    from ..training.latents import encode_latents

    return encode_latents(options)


def evaluate(options) -> str:
    """Evaluate a world, on a cluster if asked to."""
    if options.ray is not None:
        from ..cluster.evaluating import evaluate_on_cluster

        return evaluate_on_cluster(options)
    from ..evaluation.evaluate import evaluate

    return evaluate(options)


def rank(options) -> str:
    """Rank policies, on a cluster if asked to."""
    if options.ray is not None:
        from ..cluster.cluster_ranking import rank_on_cluster

        return rank_on_cluster(options)
    from ..ranking.rank import rank

    return rank(options)
