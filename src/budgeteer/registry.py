"""Every method by name: one line each, from which exports, command line, documentation and tests follow.

>>> get("neyman").arxiv
'2605.08441'
>>> load("uniform").__name__
'uniform'
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from budgeteer.errors import InvalidInput, UnknownName

GROUP = "budgeteer.methods"
"""Entry point group of methods outside this package; each entry point loads to a :class:`Method`."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method.

    Attributes:
        name: what the command line and the recipes call it.
        part: ``"allocator"``, ``"stopper"``, ``"recipe"``, ``"advantage"``, ...
        path: ``"package.module:factory"``.
        decides: what it decides, in one line.
        paper: title of the paper, or ``""``.
        arxiv: arXiv id, or ``""``.
        evidence: module of ``budgeteer.lab.evidence`` that tests its claim, or None.
    """

    name: str
    part: str
    path: str
    decides: str
    paper: str = ""
    arxiv: str = ""
    evidence: str | None = None


_DUET = ("DUET: Optimize Token-Budget Allocation for RL with Verifiable Rewards", "2605.08441", "duet")
_SACK = ("Knapsack RL: Unlocking Exploration of LLMs via Optimizing Budget Allocation", "2509.25849", "knapsack")
_ADA = ("Reinforce-Ada: An Adaptive Sampling Framework for Reinforce-Style LLM Training", "2510.04996", "reinforce_ada")
_DAPO = ("DAPO: An Open-Source LLM Reinforcement Learning System at Scale", "2503.14476")
_VIP = ("Adaptive Rollout Allocation for Online Reinforcement Learning with Verifiable Rewards", "2602.01601")
_PLAN = ("Plan and Budget: Effective and Efficient Test-Time Scaling on Reasoning LLMs", "2505.16122")
_GRPO = ("DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models", "2402.03300")
_DMD = ("The Best of Many Worlds: Dual Mirror Descent for Online Allocation Problems", "2011.10124", "dual_descent")
_ZCL = ("Automated Composition of Agents: A Knapsack Approach", "2510.16499", "online_knapsack")
_TS = ("Thompson Sampling for Budgeted Multi-armed Bandits", "1505.00146", "thompson")
_SH = ("Non-stochastic Best Arm Identification", "1502.07943", "successive_halving")
_OD = ("Cost-efficient ability estimation by optimal design", "2604.01418", "optimal_design")
_RCO = ("Riemannian exact-budget optimisation", "2605.00649", "riemannian")
_PIV = ("New Philosopher Inequalities for Online Bayesian Matching", "2407.15285", "pivotal")
_ALF = ("Auxiliary-Loss-Free Load Balancing Strategy for Mixture-of-Experts", "2408.15664", "load_balance")
_BG = ("Steering LLM Thinking with Budget Guidance", "2506.13752", "budget_guidance")
_ZIP = ("Zero-Overhead Introspection for Adaptive Test-Time Compute", "2512.01457", "zip_rc")
_SWI = ("SwiReasoning: Switch-Thinking in Latent and Explicit", "2510.05069", "switch_thinking")
_MIRO = ("Mirostat: A Neural Text Decoding Algorithm that Directly Controls Perplexity", "2007.14966", "mirostat")
_DIFF = ("DiffAdapt: Difficulty-Adaptive Reasoning for Token-Efficient LLM Inference", "2510.19669", "diffadapt_probe")
_A, _S, _R, _T = "budgeteer.allocate", "budgeteer.stop", "budgeteer.rl.recipes", "budgeteer.think"

# fmt: off
_ALL = (
    Method("uniform", "allocator", f"{_A}.uniform:uniform", "the same units for every item", evidence="uniform"),
    Method("neyman", "allocator", f"{_A}.neyman:neyman", "units by std / sqrt(cost): least variance", *_DUET),
    Method("knapsack-allocator", "allocator", f"{_A}.knapsack:knapsack", "units where a mixed group pays most", *_SACK),
    Method("selective", "allocator", f"{_A}.selective:selective", "units or none, by value per token",
           *_SACK[:2], "selective"),
    Method("variance", "allocator", f"{_A}.variance:variance", "units by predicted reward variance p (1 - p)",
           *_VIP, "variance"),
    Method("elimination", "allocator", f"{_A}.elimination:elimination", "rounds until a group is good enough", *_ADA),
    Method("dynamic-sampling", "allocator", f"{_A}.dynamic_sampling:dynamic_sampling", "new items until enough mix",
           *_DAPO, "dynamic_sampling"),
    Method("proportional", "allocator", f"{_A}.proportional:proportional", "units in proportion to a column",
           evidence="proportional"),
    Method("water-filling", "allocator", f"{_A}.water_filling:water_filling", "units by error curves: equal gain",
           *_PLAN, "water_filling"),
    Method("greedy-marginal", "allocator", f"{_A}.greedy_marginal:greedy_marginal", "menus: the steepest step next",
           evidence="greedy_marginal"),
    Method("menu-knapsack", "allocator", f"{_A}.menu_knapsack:menu_knapsack", "menus: most value, certified or exact",
           evidence="menu_knapsack"),
    Method("max-min", "allocator", f"{_A}.budgeted_max_min:budgeted_max_min", "menus: the worst item as good as can be",
           evidence="budgeted_max_min"),
    Method("thompson", "allocator", f"{_A}.thompson:thompson", "units where a posterior draw buys most reward", *_TS),
    Method("successive-halving", "allocator", f"{_A}.successive_halving:successive_halving",
           "rounds that drop the worse half", *_SH),
    Method("optimal-design", "allocator", f"{_A}.optimal_design:optimal_design", "questions by information a token",
           *_OD),
    Method("dual-descent", "online", f"{_A}.dual_descent:dual_descent", "requests or options against a price", *_DMD),
    Method("online-knapsack", "online", f"{_A}.online_knapsack:online_knapsack", "buy now or never", *_ZCL),
    Method("riemannian", "joint", f"{_A}.riemannian:riemannian", "an option a group for a loss of all together", *_RCO),
    Method("pivotal", "rounding", f"{_A}.pivotal:pivotal", "whole choices from fractions, exact total", *_PIV),
    Method("online-matching", "matching", f"{_A}.online_matching:online_matching", "which resource serves whom", *_PIV),
    Method("load-balance", "router", f"{_A}.load_balance:load_balance", "experts by score plus balancing bias", *_ALF),
    Method("marker-gate", "stopper", f"{_S}.marker_gate:marker_gate", "end sure rows, abort late ones", *_DUET),
    Method("answered", "stopper", f"{_S}.answered:answered", "end a row once its answer is complete",
           evidence="answered"),
    Method("grpo", "recipe", f"{_R}:grpo", "uniform groups, run to their end", *_GRPO),
    Method("dapo", "recipe", f"{_R}:dapo", "new prompts until enough groups are mixed", *_DAPO),
    Method("duet", "recipe", f"{_R}:duet_mended", "rollouts a prompt and when to stop each, faults mended", *_DUET),
    Method("duet-allocation", "recipe", f"{_R}:duet_allocation", "duet without its stopping rule", *_DUET),
    Method("duet-select", "recipe", f"{_R}:duet_select", "duet that also skips prompts, from thrice as many", *_DUET),
    Method("duet-published", "recipe", f"{_R}:duet_published", "the same as its official code has it", *_DUET),
    Method("knapsack", "recipe", f"{_R}:knapsack_rl", "rollouts where a mixed group teaches most", *_SACK),
    Method("reinforce-ada-pos", "recipe", f"{_R}:reinforce_ada_pos", "rounds until a first success", *_ADA),
    Method("reinforce-ada-balance", "recipe", f"{_R}:reinforce_ada_balance", "rounds until both classes show", *_ADA),
    Method("vip", "recipe", f"{_R}:vip", "rollouts by predicted reward variance", *_VIP),
    Method("uniform-stop", "recipe", f"{_R}:uniform_stop", "duet's control: its stopping, but uniform groups"),
    Method("switch-thinking", "strategy", f"{_T}.switch_thinking:switch_thinking", "tokens or mixes by entropy", *_SWI),
    Method("budget-guidance", "strategy", f"{_T}.budget_guidance:budget_guidance", "tokens that will fit", *_BG),
    Method("zip-rc", "strategy", f"{_T}.zip_rc:zip_rc", "which of parallel samples go on", *_ZIP),
    Method("diffadapt-probe", "strategy", f"{_T}.diffadapt_probe:diffadapt_probe", "cap and heat by a probe", *_DIFF),
    Method("mirostat", "strategy", f"{_T}.mirostat:mirostat", "draws at a set surprise a token", *_MIRO),
    Method("uniform-answer-stop", "recipe", f"{_R}:uniform_answer_stop", "GRPO whose rows end once answered"),
)
# fmt: on

METHODS: dict[str, Method] = {method.name: method for method in _ALL}
"""The methods of this package, by name."""


def methods() -> dict[str, Method]:
    """All methods: those of this package, then those of other installed packages, which may not take a name of ours."""
    from importlib.metadata import entry_points  # slow to import, and most callers only want METHODS

    found = dict(METHODS)
    for entry in entry_points(group=GROUP):
        method = entry.load()
        if not isinstance(method, Method):
            raise InvalidInput(f"entry point {entry.name!r} of group {GROUP!r} loads to {method!r}; load to a Method")
        if method.name in found:
            raise InvalidInput(
                f"entry point {entry.name!r} registers {method.name!r} a second time; choose another name"
            )
        found[method.name] = method
    return found


def get(name: str) -> Method:
    """The method of this name.

    Raises:
        UnknownName: no method has it; the message lists the nearest names.
    """
    if name in METHODS:
        return METHODS[name]
    known = methods()
    if name not in known:
        raise UnknownName("method", name, known)
    return known[name]


def load(method: Method | str) -> Any:
    """Import a method's module and return its factory."""
    module, _, factory = (get(method) if isinstance(method, str) else method).path.partition(":")
    return getattr(importlib.import_module(module), factory)
