"""Compare agents in the PushT simulator with each other and with scripts.

    python examples/evaluate_agent.py --agents cloned=outputs/agent after=outputs/agent-after-dreams --baselines \
        --output_dir outputs/agents
"""

from dreamer_hf.cli import run_with_options
from dreamer_hf.evaluation.agent_episodes import evaluate_agents
from dreamer_hf.evaluation.agent_options import AgentEvaluationOptions

if __name__ == "__main__":
    run_with_options(AgentEvaluationOptions, evaluate_agents, __doc__)
