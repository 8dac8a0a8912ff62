"""The methods of this package, one entry each; exports, command lines, documentation and shared checks follow from it.

A new method is its file, its evidence and its entry here.
"""

from __future__ import annotations

from functools import partial

from budgeteer.core.method import Citation, Method
from budgeteer.core.papers import paper


def _paper(name: str) -> Citation:
    """A paper of the catalogue."""
    entry = paper(name)
    return Citation(entry.title, entry.arxiv)


def _path(package: str, name: str) -> str:
    """The factory ``name`` in the file ``_name.py`` of a package."""
    return f"budgeteer.{package}._{name}:{name}"


def _example(name: str) -> str:
    """The function of ``budgeteer.check.examples`` that makes arguments for the shared checks."""
    return f"budgeteer.check.examples:{name}"


# fmt: off: a table
DUET = _paper("DUET")
KNAPSACK_RL = _paper("Knapsack-RL")
VIP = Citation("Adaptive Rollout Allocation for Online Reinforcement Learning with Verifiable Rewards", "2602.01601")
REINFORCE_ADA = _paper("Reinforce-Ada")
DAPO = Citation("DAPO: An Open-Source LLM Reinforcement Learning System at Scale", "2503.14476")
PLAN_AND_BUDGET = _paper("Plan-and-Budget")
BUDGETED_THOMPSON = Citation("Thompson Sampling for Budgeted Multi-armed Bandits", "1505.00146")
SUCCESSIVE_HALVING = Citation("Non-stochastic Best Arm Identification and Hyperparameter Optimization", "1502.07943")
ABILITY_ESTIMATION = _paper("AbilityEstimation")
AGENT_TTS = _paper("AgentTTS")
COT_X = _paper("CoT-X")
CLEAR = Citation(
    "The Shadow Price of Reasoning: Economic Perspective on Optimal Budget Allocation for LLMs", "2606.03092"
)
DUAL_MIRROR_DESCENT = _paper("DualMirrorDescent")
AGENT_KNAPSACK = _paper("AgentKnapsack")
RCO = _paper("RCO")
PIVOTAL = _paper("PivotalSamplingMatching")
LOAD_BALANCE = Citation("Auxiliary-Loss-Free Load Balancing Strategy for Mixture-of-Experts", "2408.15664")
TOKEN_BUDGETS = _paper("TokenBudgets-incidents")
SELF_CONSISTENCY = Citation("Self-Consistency Improves Chain of Thought Reasoning in Language Models", "2203.11171")
ADAPTIVE_CONSISTENCY = Citation(
    "Let's Sample Step by Step: Adaptive-Consistency for Efficient Reasoning and Coding with LLMs",
    "2305.11860",
)
BEST_OF_MAJORITY = _paper("Best-of-Majority")
DORA = _paper("DORA")
REBASE = Citation(
    "Inference Scaling Laws: An Empirical Analysis of Compute-Optimal Inference for Problem-Solving with "
    "Language Models",
    "2408.00724",
)
BAVT = _paper("BAVT")
BATS = _paper("BATS")
VOI_CONTROL = _paper("VOI-control")
ROUTER_R1 = _paper("Router-R1")
SPARK_ME = _paper("SparkMe")
TURN_CONTROL = _paper("TurnControl")
TREE_PLANNER = _paper("Tree-Planner")
CODE_AGENTS = _paper("CodeAgents")
REACT = Citation("ReAct: Synergizing Reasoning and Acting in Language Models", "2210.03629")
SCALE = _paper("SCALE")
CROWD_LABELING = Citation("Statistical Decision Making for Optimal Budget Allocation in Crowd Labeling", "1403.3080")
GRPO = Citation("DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models", "2402.03300")
SWI_REASONING = _paper("SwiReasoning")
BUDGET_GUIDANCE = _paper("BudgetGuidance")
ZIP_RC = _paper("ZIP-RC")
DIFFADAPT = _paper("DiffAdapt")
MIROSTAT = _paper("Mirostat")
S1 = Citation("s1: Simple test-time scaling", "2501.19393")
ELASTIC = _paper("ElasticReasoning")
EDGE_REASONING = _paper("EdgeReasoning")
WHEN_MORE_IS_LESS = _paper("WhenMoreIsLess")
BENCH_OVERFLOW = _paper("BenchOverflow")
R_CONSTRAINT = _paper("R-ConstraintBench")
THINK_SHORT = _paper("TrainLongThinkShort")
LASER, ARLCP, ADACTRL, E1 = _paper("LASER"), _paper("ARLCP"), _paper("AdaCtrl"), _paper("e1")
PEAR, ADATHINK_MED, ARES = _paper("PEAR"), _paper("AdaThink-Med"), _paper("ARES")
TP_SCHEDULE = _paper("TemporalScheduling")
SEELE, HBPO = _paper("SEELE"), _paper("HBPO")
REX = _paper("REX")
APRIEL = _paper("Apriel-Reasoner")
TEMPO_TREE = _paper("TreeGRPO-credit")
RING = _paper("IcePop+C3PO++")
D3S, BRPO, DART = _paper("D3S"), _paper("AnytimeReasoner-BRPO"), _paper("DART")
MOPPS = Citation(
    "Can Prompt Difficulty be Online Predicted for Accelerating RL Finetuning of Reasoning Models?", "2507.04632"
)
C_GRPO = Citation("C-GRPO: conformal adaptive rollout budgets for GRPO (the package trl-cgrpo)", "")
RMT, ADAPTIVE_DEEP, ADACOT = _paper("RMT"), _paper("AdaptiveDeepReasoning"), _paper("AdaCoT")
TRAAC, THINKDIAL, VISIONTHINK = _paper("TRAAC"), _paper("ThinkDial"), _paper("VisionThink")
FORCED_RL = _paper("BudgetForcing-RL")
ADAR1, BRAKING, TURBOS = _paper("AdaR1"), _paper("SelfBrakingTuning"), _paper("Hunyuan-TurboS")
L1 = Citation("L1: Controlling How Long A Reasoning Model Thinks With Reinforcement Learning", "2503.04697")
KIMI = Citation("Kimi k1.5: Scaling Reinforcement Learning with LLMs", "2501.12599")
O1_PRUNER = Citation("O1-Pruner: Length-Harmonizing Fine-Tuning for O1-Like Reasoning Pruning", "2501.12570")
SHORTER_BETTER = Citation(
    "ShorterBetter: Guiding Reasoning Models to Find Optimal Inference Length for Efficient Reasoning", "2504.21370"
)
ALP = Citation(
    "Just Enough Thinking: Efficient Reasoning with Adaptive Length Penalties Reinforcement Learning", "2506.05256"
)
DEMYSTIFYING = Citation("Demystifying Long Chain-of-Thought Reasoning in LLMs", "2502.03373")
RLOO = Citation(
    "Back to Basics: Revisiting REINFORCE Style Optimization for Learning from Human Feedback in LLMs", "2402.14740"
)
REINFORCE_PP = Citation("REINFORCE++: Stabilizing Critic-Free Policy Optimization", "2501.03262")
OPO = Citation("On-Policy RL with Optimal Reward Baseline", "2505.23585")
PASS_AT_K = Citation(
    "Pass@k Training for Adaptively Balancing Exploration and Exploitation of Large Reasoning Models", "2508.10751"
)
DR_GRPO = Citation("Understanding R1-Zero-Like Training: A Critical Perspective", "2503.20783")
GSPO = Citation("Group Sequence Policy Optimization", "2507.18071")
FORKING = Citation(
    "Beyond the 80/20 Rule: High-Entropy Minority Tokens Drive Effective Reinforcement Learning for LLM Reasoning",
    "2506.01939",
)
STREAMING_LLM = Citation("Efficient Streaming Language Models with Attention Sinks", "2309.17453")
KNORM = Citation("A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression", "2406.11430")
TOVA = Citation("Transformers are Multi-State RNNs", "2401.06104")
SNAPKV = Citation("SnapKV: LLM Knows What You are Looking for Before Generation", "2404.14469")
ADA_KV = Citation(
    "Ada-KV: Optimizing KV Cache Eviction by Adaptive Budget Allocation for Efficient LLM Inference", "2407.11550"
)
PYRAMID_KV = Citation("PyramidKV: Dynamic KV Cache Compression based on Pyramidal Information Funneling", "2406.02069")
H2O, DEFENSIVE, PREFIX_KV = _paper("H2O"), _paper("DefensiveKV"), _paper("PrefixKV")
TCA_ATTENTION = _paper("TCA-Attention")
EXPECTED_ATTENTION = Citation(
    "Expected Attention: KV Cache Compression by Estimating Attention from Future Queries Distribution", "2510.00636"
)
KIVI = Citation("KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache", "2402.02750")
QUEST = Citation("Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference", "2406.10774")
KEYDIFF = Citation(
    "KeyDiff: Key Similarity-Based KV Cache Eviction for Long-Context LLM Inference in Resource-Constrained "
    "Environments",
    "2504.15364",
)

COMPACTOR = Citation(
    "Compactor: Calibrated Query-Agnostic KV Cache Compression with Approximate Leverage Scores", "2507.08143"
)
KVZAP = Citation("KVzap: Fast, Adaptive, and Faithful KV Cache Pruning", "2601.07891")
TRI_ATTENTION = Citation("TriAttention: Efficient Long Reasoning with Trigonometric KV Compression", "2604.04921")
KV_ZIP = Citation("KVzip: Query-Agnostic KV Cache Compression with Context Reconstruction", "2505.23416")
EMS, REWARD_FORCING = _paper("EMS"), _paper("RewardForcing-EMASink")
ROUTING_SURVEY = _paper("RoutingSurvey")
BM25S = Citation("BM25S: Orders of magnitude faster lexical search via eager sparse scoring", "2407.03618")
SELECTIVE_CONTEXT = Citation(
    "Compressing Context to Enhance Inference Efficiency of Large Language Models", "2310.06201"
)

_A, _O, _J = partial(_path, "allocate"), partial(_path, "online"), partial(_path, "joint")
_R, _RW, _W = partial(_path, "rl.recipes"), partial(_path, "rl.reward"), partial(_path, "rl.weight")
_AD, _IM, _RA = partial(_path, "rl.advantage"), partial(_path, "rl.importance"), partial(_path, "rl.ratio")
_ST, _CA, _SC = partial(_path, "rl.stream"), partial(_path, "rl.carry"), partial(_path, "rl.schedule")
_VA = partial(_path, "rl.variant")
_CS, _CP, _CR = partial(_path, "cache.score"), partial(_path, "cache.split"), partial(_path, "cache.rest")
_CX, _RO = partial(_path, "context"), partial(_path, "route")
_P, _SY = partial(_path, "gateway.policies"), partial(_path, "solve.styles")
_AG, _SR = partial(_path, "strategies.aggregator"), partial(_path, "strategies.scorer")
_S, _T, _V = partial(_path, "steer"), partial(_path, "strategies"), partial(_path, "verify")
_TU, _AN = partial(_path, "tuning"), partial(_path, "agent")
_STATIC, _EVICTING, _READING = ("static selection",), ("dynamic eviction",), ("dynamic reading",)
_BY_LAYER, _BY_HEAD = ("layer budgets",), ("head budgets",)

METHODS: tuple[Method, ...] = (
    # allocator
    Method("uniform", "allocator", _A("uniform"), "the same units for every item", evidence="uniform"),
    Method(
        "neyman",
        "allocator",
        _A("neyman"),
        "units by std / sqrt(cost): least variance",
        DUET,
        evidence="duet",
        objective="budgeteer.check.objectives:neyman",
    ),
    Method(
        "knapsack-allocator",
        "allocator",
        _A("knapsack"),
        "units where a mixed group pays most",
        KNAPSACK_RL,
        evidence="knapsack",
        objective="budgeteer.check.objectives:knapsack",
    ),
    Method(
        "selective",
        "allocator",
        _A("selective"),
        "units or none, by value per token",
        KNAPSACK_RL,
        evidence="selective",
        objective="budgeteer.check.objectives:selective",
    ),
    Method(
        "variance",
        "allocator",
        _A("variance"),
        "units by predicted reward variance p (1 - p)",
        VIP,
        evidence="variance",
        objective="budgeteer.check.objectives:variance",
    ),
    Method(
        "elimination",
        "allocator",
        _A("elimination"),
        "rounds until a group is good enough",
        REINFORCE_ADA,
        evidence="reinforce_ada",
    ),
    Method("curated", "allocator", _A("curated"), "fewer for what is solved, caps from past successes", DART),
    Method("probing", "allocator", _A("probing"), "a small group first, more where it was mixed or may be"),
    Method(
        "conformal",
        "allocator",
        _A("conformal"),
        "rounds until a calibrated score says solved",
        C_GRPO,
    ),
    Method(
        "dynamic-sampling",
        "allocator",
        _A("dynamic_sampling"),
        "new items until enough mix",
        DAPO,
        evidence="dynamic_sampling",
        arguments={"target": 4},
        traits=("ordered",),
    ),
    Method("proportional", "allocator", _A("proportional"), "units in proportion to a column", evidence="proportional"),
    Method(
        "water-filling",
        "allocator",
        _A("water_filling"),
        "units by error curves: equal gain",
        PLAN_AND_BUDGET,
        evidence="water_filling",
        objective="budgeteer.check.objectives:water_filling",
    ),
    Method(
        "clear",
        "allocator",
        _A("clear"),
        "units behind thresholds by a shadow price, or none",
        CLEAR,
        objective="budgeteer.check.objectives:clear",
    ),
    Method(
        "greedy-marginal",
        "allocator",
        _A("greedy_marginal"),
        "menus: the steepest step next",
        evidence="greedy_marginal",
        traits=("menu",),
    ),
    Method(
        "menu-knapsack",
        "allocator",
        _A("menu_knapsack"),
        "menus: most value, certified or exact",
        evidence="menu_knapsack",
        traits=("menu",),
    ),
    Method(
        "max-min",
        "allocator",
        _A("budgeted_max_min"),
        "menus: the worst item as good as can be",
        evidence="budgeted_max_min",
        traits=("menu",),
        objective="budgeteer.check.objectives:max_min",
    ),
    Method(
        "thompson",
        "allocator",
        _A("thompson"),
        "units where a posterior draw buys most reward",
        BUDGETED_THOMPSON,
        evidence="thompson",
    ),
    Method(
        "successive-halving",
        "allocator",
        _A("successive_halving"),
        "rounds that drop the worse half",
        SUCCESSIVE_HALVING,
        evidence="successive_halving",
    ),
    Method(
        "optimal-design",
        "allocator",
        _A("optimal_design"),
        "questions by information a token",
        ABILITY_ESTIMATION,
        evidence="optimal_design",
        arguments="budgeteer.check.examples:optimal_design",
    ),
    # online
    Method(
        "dual-descent",
        "online",
        _O("dual_descent"),
        "requests or options against a price",
        DUAL_MIRROR_DESCENT,
        evidence="dual_descent",
        arguments={"budget": (300,), "horizon": 400},
    ),
    Method(
        "online-knapsack",
        "online",
        _O("online_knapsack"),
        "buy now or never",
        AGENT_KNAPSACK,
        evidence="online_knapsack",
        arguments={"budget": 300, "low": 0.05, "high": 3.0},
    ),
    # joint
    Method(
        "riemannian",
        "joint",
        _J("riemannian"),
        "an option a group for a loss of all together",
        RCO,
        evidence="riemannian",
        arguments={"steps": 40},
        traits=("gradient",),
    ),
    Method(
        "agent-tts",
        "joint",
        _J("agent_tts"),
        "model and samples of each stage of a pipeline",
        AGENT_TTS,
    ),
    Method(
        "gaussian-process",
        "joint",
        _J("gaussian_process"),
        "which pairs of models are worth a trial",
        COT_X,
    ),
    # rounding
    Method(
        "pivotal", "rounding", _A("pivotal"), "whole choices from fractions, exact total", PIVOTAL, evidence="pivotal"
    ),
    # matching
    Method(
        "online-matching", "matching", _O("online_matching"), "which resource serves whom", PIVOTAL, evidence="pivotal"
    ),
    # router
    Method(
        "load-balance",
        "router",
        _O("load_balance"),
        "experts by score plus balancing bias",
        LOAD_BALANCE,
        evidence="load_balance",
        arguments={"chosen": 2},
    ),
    # allowance
    Method(
        "allowance", "allowance", "budgeteer.ledger:Allowance", "who may spend: delegated, never copied", TOKEN_BUDGETS
    ),
    # steer
    Method(
        "marker-gate",
        "steer",
        _S("marker_gate"),
        "end sure rows, abort late ones",
        DUET,
        evidence="duet",
        arguments={"first": 40, "last": 120},
    ),
    Method("answered", "steer", _S("answered"), "end a row once its answer is complete", evidence="answered"),
    Method(
        "budget-forcing",
        "steer",
        _S("budget_forcing"),
        "close thinking at its cap, or make it go on",
        S1,
        evidence="budget_forcing",
        arguments={"most": 60, "minimum": 9, "wait": "wait"},
    ),
    Method(
        "soft-landing",
        "steer",
        _S("soft_landing"),
        "close thinking where closing is likely, late in its budget",
        arguments={"most": 60},
    ),
    Method(
        "two-budgets",
        "steer",
        _S("two_budgets"),
        "one budget for the thinking, another for the answer",
        ELASTIC,
        arguments={"think": 40, "answer": 12},
    ),
    Method("truncate", "steer", _S("truncate"), "end rows that think too long", arguments={"most": 60}),
    Method(
        "budget-guidance",
        "steer",
        _S("budget_guidance"),
        "favour tokens after which the thinking fits",
        BUDGET_GUIDANCE,
        evidence="budget_guidance",
        arguments="budgeteer.check.examples:guidance",
    ),
    Method(
        "mirostat", "steer", _S("mirostat"), "hold a row's surprise a token at a target", MIROSTAT, evidence="mirostat"
    ),
    Method(
        "switch-thinking",
        "steer",
        _S("switch_thinking"),
        "think in embeddings while unsure",
        SWI_REASONING,
        evidence="switch_thinking",
        arguments={"window": 3, "opening": "^"},
    ),
    Method(
        "diffadapt-probe",
        "steer",
        _S("diffadapt_probe"),
        "cap and heat by a probe of the question",
        DIFFADAPT,
        evidence="diffadapt_probe",
        arguments="budgeteer.check.examples:probe",
    ),
    Method(
        "zip-rc",
        "steer",
        _S("zip_rc"),
        "end samples that are not worth their tokens",
        ZIP_RC,
        evidence="zip_rc",
        arguments="budgeteer.check.examples:samples",
    ),
    # strategy
    Method(
        "self-consistency",
        "strategy",
        _T("self_consistency"),
        "n samples, their majority",
        SELF_CONSISTENCY,
        evidence="thinking_samples",
    ),
    Method(
        "adaptive-vote",
        "strategy",
        _T("adaptive_vote"),
        "samples until the majority is decided",
        ADAPTIVE_CONSISTENCY,
        evidence="adaptive_vote",
    ),
    Method(
        "best-of-n",
        "strategy",
        _T("best_of_n"),
        "n samples, the one with the best score",
        evidence="thinking_samples",
        arguments={"scorer": "self-evaluation"},
    ),
    Method(
        "best-of-majority",
        "strategy",
        _T("best_of_majority"),
        "n samples, the best score among frequent answers",
        BEST_OF_MAJORITY,
        evidence="best_of_majority",
        arguments={"scorer": "self-evaluation"},
    ),
    Method(
        "dora",
        "strategy",
        _T("dora"),
        "rollouts by score over directions: duplicates share",
        DORA,
        evidence="dora",
        arguments={"scorer": "self-evaluation"},
    ),
    Method(
        "rebase",
        "strategy",
        _T("rebase"),
        "rollouts by softmax of their path's score",
        REBASE,
        evidence="dora",
        arguments={"scorer": "mean-logprob"},
    ),
    Method(
        "beam",
        "strategy",
        _T("beam"),
        "the best paths go on, all with the same width",
        evidence="dora",
        arguments={"scorer": "self-evaluation"},
    ),
    Method(
        "value-tree",
        "strategy",
        _T("value_tree"),
        "which step to grow: greedier as the budget ends",
        BAVT,
        evidence="value_tree",
        arguments={"critic": "progress"},
    ),
    Method(
        "react",
        "strategy",
        _AN("react"),
        "calls tools until the model answers, at most so many turns",
        REACT,
        traits=("tools",),
    ),
    Method(
        "one-prompt",
        "strategy",
        _AN("one_prompt"),
        "reads all that the tools could tell, and calls none",
        traits=("tools",),
    ),
    Method(
        "turn-control",
        "strategy",
        _AN("turn_control"),
        "a cap of turns, extended or not, with reminders",
        TURN_CONTROL,
        traits=("tools",),
    ),
    Method(
        "bats", "strategy", _AN("bats"), "plans, acts and checks with its budget in the prompt", BATS, traits=("tools",)
    ),
    Method(
        "bavt",
        "strategy",
        _AN("bavt"),
        "which turn of an agent's tree to grow, greedier as the budget ends",
        BAVT,
        traits=("tools",),
    ),
    Method(
        "voi",
        "strategy",
        _AN("voi"),
        "search, decompose or answer: the best gain for its share",
        VOI_CONTROL,
        traits=("tools",),
    ),
    Method(
        "tree-planner",
        "strategy",
        _AN("tree_planner"),
        "which calls to make: plans sampled once, choices only where they part",
        TREE_PLANNER,
        traits=("tools",),
    ),
    Method(
        "code-agents",
        "strategy",
        _AN("code_agents"),
        "which calls to make: a program over the tools, written once and run",
        CODE_AGENTS,
        traits=("tools",),
    ),
    Method(
        "composer",
        "strategy",
        _AN("composer"),
        "which tools are kept in the prompt: tested, judged and bought by their price",
        AGENT_KNAPSACK,
        traits=("tools",),
    ),
    Method(
        "interview",
        "strategy",
        _AN("interview"),
        "which questions come next: the path that covers most for its turns",
        SPARK_ME,
        traits=("tools",),
    ),
    Method(
        "routed",
        "strategy",
        _AN("routed"),
        "which of two models takes each step, with what is left in view",
        _paper("BudgetAwareRouting"),
        arguments=_example("second_model"),
        traits=("tools",),
    ),
    Method("scale", "strategy", _T("scale"), "which sub-problems are worth thinking about", SCALE, evidence="scale"),
    Method(
        "switch-thinking",
        "strategy",
        _T("switch_thinking"),
        "tokens or mixes by entropy",
        SWI_REASONING,
        evidence="switch_thinking",
    ),
    Method(
        "budget-guidance",
        "strategy",
        _T("budget_guidance"),
        "tokens that will fit",
        BUDGET_GUIDANCE,
        evidence="budget_guidance",
    ),
    Method("zip-rc", "strategy", _T("zip_rc"), "which of parallel samples go on", ZIP_RC, evidence="zip_rc"),
    Method(
        "diffadapt-probe",
        "strategy",
        _T("diffadapt_probe"),
        "cap and heat by a probe",
        DIFFADAPT,
        evidence="diffadapt_probe",
    ),
    Method("mirostat", "strategy", _T("mirostat"), "draws at a set surprise a token", MIROSTAT, evidence="mirostat"),
    Method("direct", "strategy", _T("direct"), "one trace, as long as the budget allows"),
    Method(
        "cot-x",
        "strategy",
        _T("cot_x"),
        "which parts of another model's trace are read",
        COT_X,
    ),
    Method(
        "deadline",
        "strategy",
        _T("deadline"),
        "length and samples by a deadline and measured speed",
        EDGE_REASONING,
    ),
    Method("truncate", "strategy", _T("truncate"), "thinking cut at its cap, no answer forced"),
    Method(
        "budget-forcing",
        "strategy",
        _T("budget_forcing"),
        "thinking cut and answer forced, or made to go on",
        S1,
        evidence="budget_forcing",
    ),
    Method("elastic", "strategy", _T("elastic"), "a budget each for thinking and answer", ELASTIC, evidence="elastic"),
    Method(
        "plan-and-budget",
        "strategy",
        _T("plan_and_budget"),
        "tokens for each sub-question of a plan",
        PLAN_AND_BUDGET,
        evidence="plan_and_budget",
    ),
    Method(
        "diffadapt", "strategy", _T("diffadapt"), "short probes choose how to think", DIFFADAPT, evidence="diffadapt"
    ),
    Method(
        "length-filtered-vote",
        "strategy",
        _T("length_filtered_vote"),
        "lengths at which answers agree vote",
        WHEN_MORE_IS_LESS,
        evidence="length_filtered_vote",
    ),
    Method(
        "conciseness",
        "strategy",
        _T("conciseness"),
        "a reminder to be brief after the question",
        BENCH_OVERFLOW,
        evidence="conciseness",
    ),
    Method("convergence", "strategy", _T("convergence"), "stop thinking when the answer stays", evidence="convergence"),
    # many
    Method(
        "split",
        "many",
        _T("split"),
        "one budget over many questions, where samples may matter",
        CROWD_LABELING,
        evidence="split",
    ),
    Method(
        "clear-many",
        "many",
        _T("clear_many"),
        "one budget over many questions: the length each needs, or none",
        CLEAR,
    ),
    Method(
        "composer-many",
        "many",
        _AN("composer_many"),
        "which tools are kept for many questions: tested on some of them, bought once",
        AGENT_KNAPSACK,
        traits=("tools",),
    ),
    # aggregator
    Method(
        "majority",
        "aggregator",
        _AG("majority"),
        "the most frequent answer",
        SELF_CONSISTENCY,
    ),
    Method(
        "weighted-majority",
        "aggregator",
        _AG("weighted_majority"),
        "the answer of most score in sum",
    ),
    Method("max-score", "aggregator", _AG("max_score"), "the answer of the best sample"),
    Method(
        "majority-filter",
        "aggregator",
        _AG("majority_filter"),
        "the best score of frequent answers",
        BEST_OF_MAJORITY,
        evidence="best_of_majority",
    ),
    # scorer
    Method("verifier", "scorer", _SR("verifier"), "the task's own check of an answer"),
    Method("mean-logprob", "scorer", _SR("mean_logprob"), "how sure the model was of its tokens"),
    Method(
        "programmatic",
        "scorer",
        _SR("programmatic"),
        "a function of question and trace",
        arguments="budgeteer.check.examples:programmatic",
    ),
    Method(
        "self-evaluation",
        "scorer",
        _SR("self_evaluation"),
        "the model's own yes or no, charged",
    ),
    Method("progress", "scorer", _SR("progress"), "the model's word on the last step, charged"),
    Method(
        "process-reward",
        "scorer",
        _SR("process_reward"),
        "a process reward model's word on every step",
        arguments="budgeteer.check.examples:rewards",
    ),
    Method(
        "reward-model",
        "scorer",
        _SR("reward_model"),
        "a reward model's word on the whole trace",
        arguments="budgeteer.check.examples:rewards",
    ),
    # verifier
    Method("auto", "verifier", _V("auto"), "as what the reference is: number, letter, list, expression, text"),
    Method("exact", "verifier", _V("exact"), "the same characters"),
    Method("number", "verifier", _V("number"), "the same number, exactly, of the same unit"),
    Method("math", "verifier", _V("math"), "expressions of the same value, wherever they are tried"),
    Method("choice", "verifier", _V("choice"), "the same letter of multiple choice"),
    # meter
    Method("cache", "meter", "budgeteer.core.meter:cache", "entries of a KV cache that are kept"),
    Method("bits", "meter", "budgeteer.core.meter:bits", "bits that numbers are stored in"),
    Method("tiles", "meter", "budgeteer.core.meter:tiles", "tiles or visual tokens of an image"),
    Method("turns", "meter", "budgeteer.core.meter:turns", "turns of an agent"),
    Method("tool", "meter", "budgeteer.core.meter:tool", "calls of tools, or of one: tool:search"),
    Method("bytes", "meter", "budgeteer.core.meter:returned", "bytes that tools return, or one: bytes:search"),
    Method("joules", "meter", "budgeteer.core.meter:joules", "energy", _paper("EnergyToToken")),
    # reward
    Method("overlong", "reward", _RW("overlong"), "less for rollouts that come near their cap", DAPO),
    Method("triangular", "reward", _RW("triangular"), "a bonus for the length that was asked for", THINK_SHORT),
    Method("laser", "reward", _RW("laser"), "a bonus within a target length that follows difficulty", LASER),
    Method("arlcp", "reward", _RW("arlcp"), "less for reflection words and length among right rows", ARLCP),
    Method("adactrl", "reward", _RW("adactrl"), "a tag of difficulty that the model writes, and its length", ADACTRL),
    Method("e1", "reward", _RW("e1"), "right within the effort that the prompt allows", E1),
    Method("hbpo", "reward", _RW("hbpo"), "right within a target length, or beyond it for less", HBPO),
    Method("pear", "reward", _RW("pear"), "less for a thinking of higher entropy than the answer", PEAR),
    Method(
        "adathink-med", "reward", _RW("adathink_med"), "lengths by difficulty, measured with certainty", ADATHINK_MED
    ),
    Method("ares", "reward", _RW("ares"), "hesitations as the difficulty is worth", ARES),
    Method("adaptive-deep", "reward", _RW("adaptive_deep"), "short or long, as the prompt needs", ADAPTIVE_DEEP),
    Method("adacot", "reward", _RW("adacot"), "thinking where the prompt is labelled to need it", ADACOT),
    Method("traac", "reward", _RW("traac"), "no longer than prompts of this difficulty usually take", TRAAC),
    Method("thinkdial", "reward", _RW("thinkdial"), "short as the mode asks, no thinking in the answer", THINKDIAL),
    Method(
        "visionthink", "reward", _RW("visionthink"), "a price on the way that the prompt does not need", VISIONTHINK
    ),
    Method("l1", "reward", _RW("l1"), "as long as the prompt asks, or at most so long", L1),
    Method("kimi", "reward", _RW("kimi"), "shorter than the prompt's other rollouts", KIMI),
    Method("o1-pruner", "reward", _RW("o1_pruner"), "shorter than the reference, and no worse", O1_PRUNER),
    Method("shorter-better", "reward", _RW("shorter_better"), "as long as the shortest right answer", SHORTER_BETTER),
    Method("alp", "reward", _RW("alp"), "a price of length that grows with the pass rate", ALP),
    Method("cosine", "reward", _RW("cosine"), "a cosine over the length, up for wrong answers", DEMYSTIFYING),
    Method("right-only", "reward", _RW("right_only"), "another reward, for right answers only"),
    Method("router-r1", "reward", _RW("router_r1"), "right, well formed, and with cheap helpers", ROUTER_R1),
    Method("repetition", "reward", _RW("repetition"), "less for what is said again, to add to others", DEMYSTIFYING),
    # advantage
    Method("grpo", "advantage", _AD("grpo_advantage"), "reward normalised within its prompt", GRPO),
    Method("centred", "advantage", _AD("centred_advantage"), "reward minus the mean of its prompt", DR_GRPO),
    Method("shrunk", "advantage", _AD("shrunk_advantage"), "reward minus a mean shrunk to the prompt's history"),
    Method("rloo", "advantage", _AD("rloo"), "reward minus the mean of the prompt's other rollouts", RLOO),
    Method("batch-scaled", "advantage", _AD("batch_scaled"), "centred in its prompt, one scale for all", REINFORCE_PP),
    Method("opo", "advantage", _AD("opo"), "reward minus the prompt's mean weighted by length", OPO),
    Method("pass-at-k", "advantage", _AD("pass_at_k"), "what a rollout adds to the best of k", PASS_AT_K),
    Method("hbpo", "advantage", _AD("hbpo_advantage"), "between the targets of a prompt, and within each", HBPO),
    Method("brpo", "advantage", _AD("brpo"), "by the answers that thinking gives wherever it is cut", BRPO),
    Method("tempo", "advantage", _AD("tempo"), "credit for the tokens at which rollouts part", TEMPO_TREE),
    # importance
    Method("high-entropy", "importance", _IM("high_entropy"), "only the tokens of largest entropy", FORKING),
    Method("temporal", "importance", _IM("temporal"), "the ends of rollouts first, all of them later", TP_SCHEDULE),
    Method("high-entropy-steps", "importance", _IM("high_entropy_steps"), "only the steps of largest entropy", DART),
    Method("down-sampled", "importance", _IM("down_sampled"), "rollouts, then tokens, of the most signal", D3S),
    # ratio
    Method("clipped", "ratio", _RA("clipped"), "the token's own ratio, clipped", DAPO),
    Method("sequence", "ratio", _RA("sequence"), "one ratio for the whole rollout, clipped", GSPO),
    Method("truncated", "ratio", _RA("truncated"), "the token's own ratio as a weight, up to a bound", DART),
    Method("icepop", "ratio", _RA("icepop"), "the token's own ratio, none outside two bounds", RING),
    # stream
    Method("domain-ratio", "stream", _ST("domain_ratio"), "domains in fixed shares of completed rollouts", APRIEL),
    Method("mopps", "stream", _ST("mopps"), "prompts that a posterior draw says are half solved", MOPPS),
    Method("tiers", "stream", _ST("tiers"), "from easy to hard prompts over the run", RMT),
    # carry
    Method("partial-rollouts", "carry", _CA("partial_rollouts"), "rows cut by a step's budget go on", RING),
    # variant
    Method("falling-budget", "variant", _VA("falling_budget"), "a falling length, said in the prompt", THINK_SHORT),
    Method("effort", "variant", _VA("effort"), "a share of the usual thinking, said in the prompt", E1),
    Method("effort-modes", "variant", _VA("effort_modes"), "low, medium or high, said in the prompt", THINKDIAL),
    Method("drawn-budget", "variant", _VA("drawn_budget"), "a length drawn at random, said in the prompt", L1),
    Method("both-kinds", "variant", _VA("both_kinds"), "long and short in turns, said in the prompt", ADAPTIVE_DEEP),
    Method("split-budgets", "variant", _VA("split_budgets"), "budgets shared out over a prompt's rollouts", HBPO),
    Method("seele", "variant", _VA("seele"), "a hint as long as the prompt needs to be half right", SEELE, "seele"),
    # schedule
    Method("rex", "schedule", _SC("rex"), "a reflected exponential, above a straight line", REX),
    Method("staircase", "schedule", _SC("staircase"), "falls by a factor at every stair", THINK_SHORT),
    Method("linear", "schedule", _SC("linear"), "falls on a straight line", THINK_SHORT),
    Method("decay", "schedule", _SC("decay"), "falls evenly in its logarithm", RMT),
    # weight
    Method("token-mean", "weight", _W("token_mean"), "every token of the batch weighs the same", DAPO),
    Method("sequence-mean", "weight", _W("sequence_mean"), "every rollout weighs the same", GRPO),
    Method("prompt-mean", "weight", _W("prompt_mean"), "every prompt weighs the same"),
    Method(
        "decision-mask", "weight", _W("decision_mask"), "the token that decides whether to think is not learnt", ADACOT
    ),
    # recipe
    Method(
        "untrained",
        "recipe",
        _R("untrained"),
        "no training: the policy that every gain is measured from",
    ),
    Method("grpo", "recipe", _R("grpo"), "uniform groups, run to their end", GRPO),
    Method(
        "dapo",
        "recipe",
        _R("dapo"),
        "new prompts until enough groups are mixed",
        DAPO,
        traits=("ordered",),
    ),
    Method(
        "duet",
        "recipe",
        _R("duet"),
        "rollouts a prompt and when to stop each, faults mended",
        DUET,
        evidence="duet",
        objective="budgeteer.check.objectives:neyman",
    ),
    Method(
        "duet-allocation",
        "recipe",
        _R("duet_allocation"),
        "duet without its stopping rule",
        DUET,
        evidence="duet",
        objective="budgeteer.check.objectives:neyman",
    ),
    Method(
        "prompt-selection",
        "recipe",
        _R("prompt_selection"),
        "prompts predicted solved or hopeless get no rollout",
        evidence="selective",
        objective="budgeteer.check.objectives:selective",
    ),
    Method(
        "duet-published",
        "recipe",
        _R("duet_published"),
        "the same as its official code has it",
        DUET,
        evidence="duet",
        objective="budgeteer.check.objectives:neyman",
    ),
    Method(
        "knapsack",
        "recipe",
        _R("knapsack_rl"),
        "rollouts where a mixed group teaches most",
        KNAPSACK_RL,
        evidence="knapsack",
        objective="budgeteer.check.objectives:knapsack",
    ),
    Method(
        "reinforce-ada-pos",
        "recipe",
        _R("reinforce_ada_pos"),
        "rounds until a first success",
        REINFORCE_ADA,
        evidence="reinforce_ada",
    ),
    Method(
        "reinforce-ada-balance",
        "recipe",
        _R("reinforce_ada_balance"),
        "rounds until both classes show",
        REINFORCE_ADA,
        evidence="reinforce_ada",
    ),
    Method(
        "vip",
        "recipe",
        _R("vip"),
        "rollouts by predicted reward variance",
        VIP,
        objective="budgeteer.check.objectives:variance",
    ),
    Method(
        "uniform-stop",
        "recipe",
        _R("uniform_stop"),
        "duet's control: its stopping, but uniform groups",
    ),
    Method("gspo", "recipe", _R("gspo"), "GRPO with one ratio a rollout", GSPO),
    Method("tempo", "recipe", _R("tempo_rl"), "GRPO with credit for the tokens at which rollouts part", TEMPO_TREE),
    Method("forking-tokens", "recipe", _R("forking_tokens"), "GRPO on the tokens of largest entropy", FORKING),
    Method("tp-schedule", "recipe", _R("tp_schedule"), "GRPO from the ends of rollouts to all of them", TP_SCHEDULE),
    Method("domain-mix", "recipe", _R("domain_mix"), "GSPO on domains in equal completed shares", APRIEL),
    Method("c-grpo", "recipe", _R("c_grpo"), "rounds until a calibrated pass rate is reached", C_GRPO),
    Method("mopps", "recipe", _R("mopps_rl"), "a curriculum by Thompson sampling, rows end once answered", MOPPS),
    Method("brpo", "recipe", _R("brpo_rl"), "rewards at several thinking budgets of each rollout", BRPO),
    Method("dart", "recipe", _R("dart"), "rollouts, caps, a pool of successes and steps by difficulty", DART),
    Method("d3s", "recipe", _R("d3s"), "GRPO on the rollouts and tokens of most signal", D3S),
    Method("c3po", "recipe", _R("c3po"), "GRPO whose cut rollouts go on and are learnt from whole", RING),
    Method(
        "train-long-think-short",
        "recipe",
        _R("train_long_think_short"),
        "GRPO with a target length that falls",
        THINK_SHORT,
    ),
    Method("elastic", "recipe", _R("elastic"), "GRPO with one budget to think and one to answer", ELASTIC),
    Method("budget-forcing", "recipe", _R("budget_forcing_rl"), "GRPO whose thinking is forced into bounds", FORCED_RL),
    Method("dr-grpo", "recipe", _R("dr_grpo"), "GRPO without division by deviation and length", DR_GRPO),
    Method("hbpo", "recipe", _R("hbpo"), "GRPO over budgets that a prompt's rollouts share out", HBPO),
    Method("seele", "recipe", _R("seele"), "GRPO with hints that bring each prompt to half right", SEELE, "seele"),
    Method("ares", "recipe", _R("ares"), "GRPO that goes on again from where hard prompts made it hesitate", ARES),
    Method("rmt", "recipe", _R("rmt"), "GRPO to a falling length, with the next-token loss on the prompts", RMT),
    Method(
        "adaptive-deep",
        "recipe",
        _R("adaptive_deep_rl"),
        "GRPO on long and short, and a loss on the first token",
        ADAPTIVE_DEEP,
    ),
    Method(
        "traac", "recipe", _R("traac"), "GRPO that also learns from traces without their least attended steps", TRAAC
    ),
    Method("uniform-answer-stop", "recipe", _R("uniform_answer_stop"), "GRPO whose rows end once answered"),
    # tuning
    Method("adar1", "tuning", _TU("adar1"), "pairs: short or long as the question needs, then the shortest", ADAR1),
    Method("adacot", "tuning", _TU("adacot"), "a label whether a question needs thinking, and such an answer", ADACOT),
    Method("adactrl", "tuning", _TU("adactrl"), "a tag of difficulty and a trace of its length", ADACTRL),
    Method("adaptive-deep", "tuning", _TU("adaptive_deep"), "long and short, asked for and not", ADAPTIVE_DEEP),
    Method("ares", "tuning", _TU("ares"), "a trace of the length that its difficulty is worth", ARES),
    Method("brief", "tuning", _TU("brief"), "the shortest right traces, drawn at a low effort"),
    Method("thinkdial", "tuning", _TU("thinkdial"), "one thinking cut for three modes of effort", THINKDIAL),
    Method("hunyuan-turbos", "tuning", _TU("hunyuan_turbos"), "short where that is right, else on from it", TURBOS),
    Method("self-braking", "tuning", _TU("self_braking"), "traces that stop when they repeat themselves", BRAKING),
    # policy
    Method("cache", "policy", _P("cache"), "answers an equal request from memory"),
    Method("loop", "policy", _P("loop"), "stops an agent that asks the same again and again"),
    Method(
        "downgrade",
        "policy",
        _P("downgrade"),
        "a cheaper model when a budget runs low",
        arguments={"models": {"large": "small"}},
    ),
    Method("route", "policy", _P("route"), "the model that a fitted router chooses", arguments=_example("router_file")),
    Method(
        "schedule",
        "policy",
        _P("schedule"),
        "shorter answers and less effort, by the spent share",
        arguments={"max_tokens": [[0, 4096], [0.5, 32]], "effort": [[0, "high"], [0.5, "low"]]},
    ),
    Method("pace", "policy", _P("pace"), "a window's limit over the requests that come", DUAL_MIRROR_DESCENT),
    Method("overflow", "policy", _P("overflow"), "against answers that run on until their cap", BENCH_OVERFLOW),
    Method("tighten", "policy", _P("tighten"), "lowers caps to what the budget still covers"),
    Method("last-answer", "policy", _P("last_answer"), "asks agents for their last answer, without tools"),
    # style
    Method(
        "reasoner",
        "style",
        _SY("reasoner"),
        "the question alone; thinking ends with </think>",
    ),
    Method("few-shot", "style", _SY("few_shot"), "raw text after worked examples"),
    Method("direct", "style", _SY("direct"), "raw text after examples; the model answers at once"),
    Method("chat", "style", _SY("chat"), "messages; the answer follows 'Answer:'"),
    Method("think", "style", _SY("think"), "messages; thinking between the tags of the model's template"),
    # task
    Method("chains", "task", "budgeteer.lab.tasks.chains:Chains", "arithmetic modulo 11, with a known number of steps"),
    Method(
        "gym",
        "task",
        "budgeteer.lab.tasks.gym:Gym",
        "a family of reasoning-gym, as in gym:lcm",
        arguments={"family": "chain_sum"},
    ),
    Method(
        "schedule",
        "task",
        "budgeteer.lab.tasks.schedule:Schedules",
        "plans under orders, capacities, closed resources, windows and pairs apart",
        R_CONSTRAINT,
    ),
    Method("real", "task", "budgeteer.lab.tasks.mixture:real", "easy and hard problems of four families"),
    Method("hard", "task", "budgeteer.lab.tasks.mixture:hard", "chains of 5 to 8 steps"),
    Method(
        "thinking",
        "task",
        "budgeteer.lab.tasks.thinking:Thinking",
        "held-out sums, stories, comparisons, sorting and dates of the thinking model",
    ),
    Method(
        "lookups",
        "task",
        "budgeteer.lab.tasks.lookups:Lookups",
        "held-out questions of the thinking model that take 1 to 4 calls of a tool",
    ),
    Method("homogeneous", "task", "budgeteer.lab.tasks.mixture:homogeneous", "chains of 4 steps, all of a kind"),
    # score
    Method("random", "score", _CS("random"), "entries at random: the control", classes=_STATIC),
    Method(
        "recent", "score", _CS("recent"), "the newest entries: a sliding window", evidence="kv_cache", classes=_EVICTING
    ),
    Method(
        "streaming-llm",
        "score",
        _CS("streaming_llm"),
        "the first entries and the newest",
        STREAMING_LLM,
        evidence="kv_cache",
        classes=_EVICTING,
    ),
    Method("knorm", "score", _CS("knorm"), "keys of a small norm", KNORM, evidence="kv_cache", classes=_STATIC),
    Method("tova", "score", _CS("tova"), "what the newest query reads", TOVA, evidence="kv_cache", classes=_EVICTING),
    Method(
        "snapkv",
        "score",
        _CS("snapkv"),
        "what the last queries read on the mean",
        SNAPKV,
        evidence="kv_cache",
        classes=_STATIC,
    ),
    Method(
        "h2o",
        "score",
        _CS("h2o"),
        "what was read most so far, and the newest entries",
        H2O,
        evidence="kv_cache",
        classes=_EVICTING,
    ),
    Method(
        "prefix-kv",
        "score",
        _CS("prefix_kv"),
        "what was read most so far, the same in all heads",
        PREFIX_KV,
        evidence="kv_cache",
        classes=_STATIC,
    ),
    Method(
        "expected-attention",
        "score",
        _CS("expected_attention"),
        "what queries that have not come yet read on the mean",
        EXPECTED_ATTENTION,
        evidence="kv_cache",
        classes=_STATIC,
    ),
    Method(
        "ems", "score", _CS("ems"), "what all queries or the last ones read; the rest is merged", EMS, classes=_STATIC
    ),
    Method(
        "kvzip",
        "score",
        _CS("kvzip"),
        "what is read when the context is written once more",
        KV_ZIP,
        evidence="kv_cache",
        classes=_STATIC,
    ),
    Method(
        "defensive",
        "score",
        _CS("defensive"),
        "what any of the last queries read, times its value",
        DEFENSIVE,
        evidence="kv_cache",
        classes=_STATIC,
    ),
    Method(
        "arkv",
        "score",
        _CS("arkv"),
        "what is read, and unevenly; the rest is quantised",
        _paper("ARKV"),
        classes=_STATIC,
    ),
    Method(
        "token-select", "score", _CS("token_select"), "what all heads vote for", _paper("TokenSelect"), classes=_READING
    ),
    Method(
        "adamas", "score", _CS("adamas"), "keys like the query, compared in 2 bits", _paper("Adamas"), classes=_READING
    ),
    Method("quest", "score", _CS("quest"), "pages that may hold what the query reads", QUEST, classes=_READING),
    Method(
        "epi-cache",
        "score",
        _CS("epi_cache"),
        "what a text of yours reads, such as a topic's",
        _paper("EpiCache"),
        classes=_STATIC,
    ),
    Method("keydiff", "score", _CS("keydiff"), "keys unlike the mean key", KEYDIFF, classes=_STATIC),
    Method(
        "compactor",
        "score",
        _CS("compactor"),
        "keys that stand out, and what neighbours read",
        COMPACTOR,
        classes=_STATIC,
    ),
    Method(
        "tri-attention",
        "score",
        _CS("tri_attention"),
        "what the mean query reads from later on",
        TRI_ATTENTION,
        classes=_STATIC,
    ),
    Method(
        "tca-attention",
        "score",
        _CS("tca_attention"),
        "a few entries of most blocks, many of those that are read widely",
        TCA_ATTENTION,
        classes=_EVICTING,
    ),
    Method(
        "kvzap",
        "score",
        _CS("kvzap"),
        "what KVzip would keep, guessed by a trained net",
        KVZAP,
        arguments=_example("kvzap"),
        classes=_STATIC,
    ),
    Method(
        "trim-kv",
        "score",
        _CS("trim_kv"),
        "what a trained gate says will last",
        _paper("TRIM-KV"),
        arguments=_example("trim_kv"),
        classes=_EVICTING,
    ),
    Method(
        "gui-kv",
        "score",
        _CS("gui_kv"),
        "what is read, less what the newest screen repeats",
        _paper("GUI-KV"),
        classes=_STATIC,
    ),
    Method(
        "prompt-distill",
        "score",
        _CS("prompt_distill"),
        "what the last query is drawn to; later layers see nothing else",
        _paper("PromptDistill"),
        classes=_STATIC,
    ),
    # split
    Method("uniform", "split", _CP("uniform"), "every head keeps equally many"),
    Method("pyramid", "split", _CP("pyramid"), "low layers keep more than high ones", PYRAMID_KV, classes=_BY_LAYER),
    Method("ada-kv", "split", _CP("ada_kv"), "the heads of a layer compete", ADA_KV, classes=_BY_HEAD),
    Method(
        "prefix", "split", _CP("prefix"), "layers hold the same share of their attention", PREFIX_KV, classes=_BY_LAYER
    ),
    Method(
        "layers", "split", _CP("layers"), "the heads of all layers compete", DEFENSIVE, classes=(*_BY_LAYER, *_BY_HEAD)
    ),
    Method(
        "knapsack",
        "split",
        _CP("knapsack"),
        "the least sum of losses that were measured",
        arguments=_example("losses"),
        classes=_BY_LAYER,
    ),
    Method(
        "profile",
        "split",
        _CP("profile"),
        "sizes of layers or heads that were found on texts",
        PREFIX_KV,
        arguments=_example("sizes"),
        classes=(*_BY_LAYER, *_BY_HEAD),
    ),
    # reducer
    Method("random", "reducer", _CX("random"), "pieces at random: the control"),
    Method("recency", "reducer", _CX("recency"), "the newest text: a sliding window"),
    Method("middle-out", "reducer", _CX("middle_out"), "the beginning and the end"),
    Method("bm25", "reducer", _CX("bm25"), "what shares rare words with the question", BM25S),
    Method("mmr", "reducer", _CX("mmr"), "like the question, unlike what is kept", arguments=_example("encode")),
    Method(
        "diverse",
        "reducer",
        _CX("diverse"),
        "like the question, of many kinds, little repeated",
        _paper("RetrievalDiversity"),
        arguments=_example("encode"),
    ),
    Method(
        "summary",
        "reducer",
        _CX("summary"),
        "the newest text after a summary of the rest",
        arguments=_example("summarise"),
    ),
    Method(
        "self-information",
        "reducer",
        _CX("self_information"),
        "the words that a language model did not expect",
        SELECTIVE_CONTEXT,
        arguments=_example("surprise"),
    ),
    Method(
        "frugal",
        "reducer",
        _CX("frugal"),
        "the words that an encoder's reading rests on",
        _paper("FrugalPrompt"),
        arguments=_example("attribute"),
    ),
    Method(
        "carrot",
        "reducer",
        _CX("carrot"),
        "the combination of pieces a reranker likes best, by tree search",
        _paper("CORAG"),
        evidence="carrot",
        arguments=_example("rerank"),
    ),
    Method(
        "marginal",
        "reducer",
        _CX("marginal"),
        "piece by piece what a reranker gains",
        evidence="carrot",
        arguments=_example("rerank"),
    ),
    Method(
        "rcr",
        "reducer",
        _CX("rcr"),
        "what an agent of a team sees, by role, stage and age",
        _paper("RCR-Router"),
        arguments=_example("encode"),
    ),
    Method(
        "budget-mem",
        "reducer",
        _CX("budget_mem"),
        "what rules, an encoder or a reranker finds: a trained router says which",
        _paper("BudgetMem"),
        arguments=_example("tiers"),
    ),
    # route
    Method("similarity", "route", _RO("similarity"), "models that did well on like requests", ROUTING_SURVEY),
    Method("classifier", "route", _RO("classifier"), "the model of the best predicted score", ROUTING_SURVEY),
    Method("cascade", "route", _RO("cascade"), "cheap first, dearer where its answer looks wrong", ROUTING_SURVEY),
    Method("bandit", "route", _RO("bandit"), "LinUCB, learnt from one model a request", ROUTING_SURVEY),
    Method(
        "pareto-bandit",
        "route",
        _RO("pareto_bandit"),
        "a bandit that paces dollars and forgets",
        Citation("ParetoBandit: Budget-Paced Adaptive Routing for Non-Stationary LLM Serving", "2604.00136"),
    ),
    Method(
        "boundary",
        "route",
        _RO("boundary"),
        "the large model where the small one fails and it does not",
        _paper("BudgetAwareRouting"),
    ),
    # rest
    Method("drop", "rest", _CR("drop"), "nothing: it is dropped"),
    Method("merge", "rest", _CR("merge"), "values go into the most similar kept entries", EMS, classes=("merging",)),
    Method("ema", "rest", _CR("ema"), "an exponential mean in the first entries", REWARD_FORCING, classes=("merging",)),
    Method(
        "quantise",
        "rest",
        _CR("quantise"),
        "the next best entries stay in 2, 4 or 8 bits",
        KIVI,
        classes=("fixed precision", "mixed precision"),
    ),
    Method(
        "float8",
        "rest",
        _CR("float8"),
        "the next best entries stay as 8-bit floats",
        _paper("ARKV"),
        classes=("fixed precision", "mixed precision"),
    ),
    Method(
        "rotate-kv",
        "rest",
        _CR("rotate_kv"),
        "the next best entries stay in 2 bits, rotated",
        _paper("RotateKV"),
        classes=("outliers", "mixed precision"),
    ),
    Method(
        "offload",
        "rest",
        _CR("offload"),
        "all stay in cold memory; each token reads the best",
        _paper("TokenSelect"),
        classes=(*_READING, "memory tiers"),
    ),
    Method(
        "flexi-cache",
        "rest",
        _CR("flexi_cache"),
        "the same, stable heads choose seldom",
        _paper("FlexiCache"),
        classes=(*_READING, "memory tiers"),
    ),
    Method(
        "matryoshka",
        "rest",
        _CR("matryoshka"),
        "all stay, in fewer numbers of a trained basis",
        _paper("MatryoshkaKV"),
        arguments=_example("projections"),
        classes=("low rank",),
    ),
)
# fmt: on
