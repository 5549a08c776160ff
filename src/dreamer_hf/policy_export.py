"""The command `dreamer export lerobot-policy`. Its options can be read without loading LeRobot."""

from dataclasses import dataclass

from .options import option


@dataclass(kw_only=True)
class PolicyExportOptions:
    """Options of `dreamer export lerobot-policy`."""

    agent: str = option(help="Agent to export: folder or Hub repository.")
    output_dir: str = option(help="Folder to write; it must be new or empty.")
    task: str = option("0", help="What the policy is to do: number or name of a task of the agent.")
    image_key: tuple[str, ...] = option(
        (),
        metavar="NAME",
        help="Observation of each camera of the world. Defaults to observation.image, or observation.images.NAME.",
    )
    deterministic: bool = option(False, help="Take the most likely action instead of drawing one.")
    temperature: float = option(1.0, help="Below 1, likely actions are drawn more often.")
    seed: int = option(0, help="Seed of the noise of the policy.")
    changes: bool = option(
        False,
        help="Give changes of positions, as the world takes them, for an environment that takes them, too. Otherwise "
        "such actions become positions, starting from observation.state.",
    )
    target_low: tuple[float, ...] = option((), help="Smallest position of each action, such as 0 0 for PushT.")
    target_high: tuple[float, ...] = option((), help="Largest position of each action, such as 512 512 for PushT.")


def export_lerobot_policy(options: PolicyExportOptions) -> str:
    """Write an agent as a LeRobot policy and return what was written, in one line.

    Raises:
        ValueError, OSError: there is no such agent, LeRobot is not installed, or an option does not fit the agent.
    """
    from .loading import load_agent

    agent = load_agent(options.agent, "cpu")
    try:
        from .lerobot.policy_writer import write_policy
    except ImportError as error:
        raise ValueError(f"exporting a LeRobot policy needs LeRobot ({error}): pip install lerobot.") from error
    write_policy(
        agent,
        options.output_dir,
        list(options.image_key) or None,
        task=options.task,
        deterministic=options.deterministic,
        temperature=options.temperature,
        seed=options.seed,
        gives_targets=not options.changes,
        target_low=list(options.target_low) or None,
        target_high=list(options.target_high) or None,
    )
    return (
        f"wrote {options.output_dir}: lerobot-eval --policy.path={options.output_dir} "
        "--policy.discover_packages_path=dreamer_hf.lerobot --env.type=..."
    )


__all__ = ["PolicyExportOptions", "export_lerobot_policy"]
