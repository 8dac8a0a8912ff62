"""Every method by name: one line each, from which exports, command line, documentation and tests follow.

>>> get("neyman").arxiv
'2605.08441'
>>> load("uniform").__name__
'uniform'
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.core.papers import paper

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


def _of(name: str) -> tuple[str, str]:
    """Title and arXiv id of a paper of the catalogue."""
    one = paper(name)
    return one.title, one.arxiv


_DUET = (*_of("DUET"), "duet")
_SACK = (*_of("Knapsack-RL"), "knapsack")
_ADA = (*_of("Reinforce-Ada"), "reinforce_ada")
_DAPO = ("DAPO: An Open-Source LLM Reinforcement Learning System at Scale", "2503.14476")
_VIP = ("Adaptive Rollout Allocation for Online Reinforcement Learning with Verifiable Rewards", "2602.01601")
_PLAN = _of("Plan-and-Budget")
_GRPO = ("DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models", "2402.03300")
_DMD = (*_of("DualMirrorDescent"), "dual_descent")
_ZCL = (*_of("AgentKnapsack"), "online_knapsack")
_TS = ("Thompson Sampling for Budgeted Multi-armed Bandits", "1505.00146", "thompson")
_SH = ("Non-stochastic Best Arm Identification and Hyperparameter Optimization", "1502.07943", "successive_halving")
_OD = (*_of("AbilityEstimation"), "optimal_design")
_RCO = (*_of("RCO"), "riemannian")
_PIV = (*_of("PivotalSamplingMatching"), "pivotal")
_ALF = ("Auxiliary-Loss-Free Load Balancing Strategy for Mixture-of-Experts", "2408.15664", "load_balance")
_BG = (*_of("BudgetGuidance"), "budget_guidance")
_ZIP = (*_of("ZIP-RC"), "zip_rc")
_SWI = (*_of("SwiReasoning"), "switch_thinking")
_MIRO = (*_of("Mirostat"), "mirostat")
_S1 = ("s1: Simple test-time scaling", "2501.19393", "budget_forcing")
_ELASTIC = (*_of("ElasticReasoning"), "elastic")
_DIFF = (*_of("DiffAdapt"), "diffadapt")
_PROBE = (*_DIFF[:2], "diffadapt_probe")
_LESS = (*_of("WhenMoreIsLess"), "length_filtered_vote")
_SC = ("Self-Consistency Improves Chain of Thought Reasoning in Language Models", "2203.11171")
_AC = ("Let's Sample Step by Step: Adaptive-Consistency for Efficient Reasoning and Coding with LLMs", "2305.11860")
_BOM = (*_of("Best-of-Majority"), "best_of_majority")
_DORA = (*_of("DORA"), "dora")
_REBASE = (
    "Inference Scaling Laws: An Empirical Analysis of Compute-Optimal Inference for Problem-Solving with "
    "Language Models",
    "2408.00724",
    "dora",
)
_BAVT = (*_of("BAVT"), "value_tree")
_SCALE = (*_of("SCALE"), "scale")
_CROWD = ("Statistical Decision Making for Optimal Budget Allocation in Crowd Labeling", "1403.3080", "split")
_A, _O, _J = "budgeteer.allocate", "budgeteer.online", "budgeteer.joint"
_S, _T, _V, _R = "budgeteer.steer", "budgeteer.strategies", "budgeteer.verify", "budgeteer.rl.recipes"

# fmt: off
_ALL = (
    Method("uniform", "allocator", f"{_A}._uniform:uniform", "the same units for every item", evidence="uniform"),
    Method("neyman", "allocator", f"{_A}._neyman:neyman", "units by std / sqrt(cost): least variance", *_DUET),
    Method("knapsack-allocator", "allocator", f"{_A}._knapsack:knapsack", "units where a mixed group pays most", *_SACK),
    Method("selective", "allocator", f"{_A}._selective:selective", "units or none, by value per token",
           *_SACK[:2], "selective"),
    Method("variance", "allocator", f"{_A}._variance:variance", "units by predicted reward variance p (1 - p)",
           *_VIP, "variance"),
    Method("elimination", "allocator", f"{_A}._elimination:elimination", "rounds until a group is good enough", *_ADA),
    Method("dynamic-sampling", "allocator", f"{_A}._dynamic_sampling:dynamic_sampling", "new items until enough mix",
           *_DAPO, "dynamic_sampling"),
    Method("proportional", "allocator", f"{_A}._proportional:proportional", "units in proportion to a column",
           evidence="proportional"),
    Method("water-filling", "allocator", f"{_A}._water_filling:water_filling", "units by error curves: equal gain",
           *_PLAN, "water_filling"),
    Method("greedy-marginal", "allocator", f"{_A}._greedy_marginal:greedy_marginal", "menus: the steepest step next",
           evidence="greedy_marginal"),
    Method("menu-knapsack", "allocator", f"{_A}._menu_knapsack:menu_knapsack", "menus: most value, certified or exact",
           evidence="menu_knapsack"),
    Method("max-min", "allocator", f"{_A}._budgeted_max_min:budgeted_max_min", "menus: the worst item as good as can be",
           evidence="budgeted_max_min"),
    Method("thompson", "allocator", f"{_A}._thompson:thompson", "units where a posterior draw buys most reward", *_TS),
    Method("successive-halving", "allocator", f"{_A}._successive_halving:successive_halving",
           "rounds that drop the worse half", *_SH),
    Method("optimal-design", "allocator", f"{_A}._optimal_design:optimal_design", "questions by information a token",
           *_OD),
    Method("dual-descent", "online", f"{_O}._dual_descent:dual_descent", "requests or options against a price", *_DMD),
    Method("online-knapsack", "online", f"{_O}._online_knapsack:online_knapsack", "buy now or never", *_ZCL),
    Method("riemannian", "joint", f"{_J}._riemannian:riemannian", "an option a group for a loss of all together", *_RCO),
    Method("pivotal", "rounding", f"{_A}._pivotal:pivotal", "whole choices from fractions, exact total", *_PIV),
    Method("online-matching", "matching", f"{_O}._online_matching:online_matching", "which resource serves whom", *_PIV),
    Method("load-balance", "router", f"{_O}._load_balance:load_balance", "experts by score plus balancing bias", *_ALF),
    Method("allowance", "ledger", "budgeteer.ledger:Allowance", "who may spend: delegated, never copied",
           *_of("TokenBudgets-incidents")),
    Method("marker-gate", "stopper", f"{_S}._marker_gate:marker_gate", "end sure rows, abort late ones", *_DUET),
    Method("answered", "stopper", f"{_S}._answered:answered", "end a row once its answer is complete",
           evidence="answered"),
    Method("self-consistency", "strategy", f"{_T}._self_consistency:self_consistency", "n samples, their majority",
           *_SC, "adaptive_vote"),
    Method("adaptive-vote", "strategy", f"{_T}._adaptive_vote:adaptive_vote", "samples until the majority is decided",
           *_AC, "adaptive_vote"),
    Method("best-of-n", "strategy", f"{_T}._best_of_n:best_of_n", "n samples, the one with the best score",
           evidence="best_of_majority"),
    Method("best-of-majority", "strategy", f"{_T}._best_of_majority:best_of_majority",
           "n samples, the best score among frequent answers", *_BOM),
    Method("dora", "strategy", f"{_T}._dora:dora", "rollouts by score over directions: duplicates share", *_DORA),
    Method("rebase", "strategy", f"{_T}._rebase:rebase", "rollouts by softmax of their path's score", *_REBASE),
    Method("beam", "strategy", f"{_T}._beam:beam", "the best paths go on, all with the same width", evidence="dora"),
    Method("value-tree", "strategy", f"{_T}._value_tree:value_tree", "which step to grow: greedier as the budget ends",
           *_BAVT),
    Method("scale", "strategy", f"{_T}._scale:scale", "which sub-problems are worth thinking about", *_SCALE),
    Method("split", "many", f"{_T}._split:split", "one budget over many questions, where samples may matter", *_CROWD),
    Method("majority", "aggregator", f"{_T}.kit.aggregate:majority", "the most frequent answer", *_SC),
    Method("weighted-majority", "aggregator", f"{_T}.kit.aggregate:weighted_majority", "the answer of most score in sum"),
    Method("max-score", "aggregator", f"{_T}.kit.aggregate:max_score", "the answer of the best sample"),
    Method("majority-filter", "aggregator", f"{_T}.kit.aggregate:majority_filter", "the best score of frequent answers",
           *_BOM),
    Method("auto", "verifier", f"{_V}:auto", "as what the reference is: number, letter, list, expression, text"),
    Method("exact", "verifier", f"{_V}:exact", "the same characters"),
    Method("number", "verifier", f"{_V}:number", "the same number, exactly, of the same unit"),
    Method("math", "verifier", f"{_V}:math", "expressions of the same value, wherever they are tried"),
    Method("choice", "verifier", f"{_V}:choice", "the same letter of multiple choice"),
    Method("verifier", "scorer", f"{_T}.kit.score:verifier", "the task's own check of an answer"),
    Method("mean-logprob", "scorer", f"{_T}.kit.score:mean_logprob", "how sure the model was of its tokens"),
    Method("programmatic", "scorer", f"{_T}.kit.score:programmatic", "a function of question and trace"),
    Method("self-evaluation", "scorer", f"{_T}.kit.score:self_evaluation", "the model's own yes or no, charged"),
    Method("progress", "scorer", f"{_T}.kit.score:progress", "the model's word on the last step, charged"),
    Method("untrained", "recipe", f"{_R}:untrained", "no training: the policy that every gain is measured from"),
    Method("grpo", "recipe", f"{_R}:grpo", "uniform groups, run to their end", *_GRPO),
    Method("dapo", "recipe", f"{_R}:dapo", "new prompts until enough groups are mixed", *_DAPO),
    Method("duet", "recipe", f"{_R}:duet_mended", "rollouts a prompt and when to stop each, faults mended", *_DUET),
    Method("duet-allocation", "recipe", f"{_R}:duet_allocation", "duet without its stopping rule", *_DUET),
    Method("prompt-selection", "recipe", f"{_R}:prompt_selection",
           "prompts predicted solved or hopeless get no rollout", evidence="selective"),
    Method("duet-published", "recipe", f"{_R}:duet_published", "the same as its official code has it", *_DUET),
    Method("knapsack", "recipe", f"{_R}:knapsack_rl", "rollouts where a mixed group teaches most", *_SACK),
    Method("reinforce-ada-pos", "recipe", f"{_R}:reinforce_ada_pos", "rounds until a first success", *_ADA),
    Method("reinforce-ada-balance", "recipe", f"{_R}:reinforce_ada_balance", "rounds until both classes show", *_ADA),
    Method("vip", "recipe", f"{_R}:vip", "rollouts by predicted reward variance", *_VIP),
    Method("uniform-stop", "recipe", f"{_R}:uniform_stop", "duet's control: its stopping, but uniform groups"),
    Method("uniform-answer-stop", "recipe", f"{_R}:uniform_answer_stop", "GRPO whose rows end once answered"),
    Method("switch-thinking", "strategy", f"{_T}._switch_thinking:switch_thinking", "tokens or mixes by entropy", *_SWI),
    Method("budget-guidance", "strategy", f"{_T}._budget_guidance:budget_guidance", "tokens that will fit", *_BG),
    Method("zip-rc", "strategy", f"{_T}._zip_rc:zip_rc", "which of parallel samples go on", *_ZIP),
    Method("diffadapt-probe", "strategy", f"{_T}._diffadapt_probe:diffadapt_probe", "cap and heat by a probe", *_PROBE),
    Method("mirostat", "strategy", f"{_T}._mirostat:mirostat", "draws at a set surprise a token", *_MIRO),
    Method("direct", "strategy", f"{_T}._direct:direct", "one trace, as long as the budget allows"),
    Method("truncate", "strategy", f"{_T}._truncate:truncate", "thinking cut at its cap, no answer forced"),
    Method("budget-forcing", "strategy", f"{_T}._budget_forcing:budget_forcing",
           "thinking cut and answer forced, or made to go on", *_S1),
    Method("elastic", "strategy", f"{_T}._elastic:elastic", "a budget each for thinking and answer", *_ELASTIC),
    Method("plan-and-budget", "strategy", f"{_T}._plan_and_budget:plan_and_budget",
           "tokens for each sub-question of a plan", *_PLAN, "plan_and_budget"),
    Method("diffadapt", "strategy", f"{_T}._diffadapt:diffadapt", "short probes choose how to think", *_DIFF),
    Method("length-filtered-vote", "strategy", f"{_T}._length_filtered_vote:length_filtered_vote",
           "lengths at which answers agree vote", *_LESS),
    Method("conciseness", "strategy", f"{_T}._conciseness:conciseness", "a reminder to be brief after the question",
           *_of("BenchOverflow"), "conciseness"),
    Method("convergence", "strategy", f"{_T}._convergence:convergence", "stop thinking when the answer stays",
           evidence="convergence"),
)
# fmt: on

METHODS: dict[str, Method] = {method.name: method for method in _ALL}
"""The methods of this package, by name."""


def methods() -> dict[str, Method]:
    """All methods: those of this package, then those of other installed packages, which may not take a name of ours."""
    from importlib.metadata import entry_points  # slow to import, and most callers only want METHODS

    found = dict(METHODS)
    parts = {method.part for method in _ALL}
    for entry in entry_points(group=GROUP):
        try:
            method = entry.load()
            factory = load(method) if isinstance(method, Method) else None
        except Exception as error:  # whatever another package's import raises
            raise InvalidInput(
                f"entry point {entry.name!r} of group {GROUP!r} cannot be loaded ({type(error).__name__}: {error}); "
                "mend or remove the package that declares it"
            ) from error
        if not isinstance(method, Method):
            raise InvalidInput(f"entry point {entry.name!r} of group {GROUP!r} loads to {method!r}; load to a Method")
        if method.part not in parts or not callable(factory):
            raise InvalidInput(
                f"entry point {entry.name!r} registers {method.name!r} as {method.part!r} at {method.path!r}; the part "
                f"is one of {', '.join(sorted(parts))}, and the path names a function as package.module:function"
            )
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


def value_of(text: str) -> Any:
    """An argument as it is written on a command line: true, false, none in any case; JSON where it parses; else text.

    >>> [value_of(text) for text in ("False", "TRUE", "none", "0.5", "[1, 2]", "power")]
    [False, True, None, 0.5, [1, 2], 'power']
    """
    low = {"true": True, "false": False, "none": None}
    if text.lower() in low:
        return low[text.lower()]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def require_bools(name: str, factory: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Refuse arguments that are no bool where the factory's default is one: any text would count as true."""
    for key, parameter in inspect.signature(factory).parameters.items():
        if isinstance(parameter.default, bool) and key in given and not isinstance(given[key], bool):
            raise InvalidInput(f"{name}: {key} is {given[key]!r}; give true or false")


def load(method: Method | str) -> Any:
    """Import a method's module and return its factory."""
    module, _, factory = (get(method) if isinstance(method, str) else method).path.partition(":")
    return getattr(importlib.import_module(module), factory)
