"""Reducers: by hand, against brute force and other code's own numbers, and what messages must look like afterwards."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from budgeteer.context import (
    diverse,
    frugal,
    marginal,
    middle_out,
    mmr,
    random,
    rcr,
    recency,
    self_information,
    summary,
)
from budgeteer.context._carrot import carrot, search
from budgeteer.context.attribution import rarity
from budgeteer.context.encode import cosine, encode_of, rerank_of, words
from budgeteer.context.fill import by_score, filled, in_order, weighted
from budgeteer.context.pieces import OMITTED, cut, talk_of
from budgeteer.context.protocol import chat_counter, counter, texts_of
from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.core.run import run_of

COUNT = counter(lambda text: len(text.split()))


def user(*texts):
    return [{"role": "user", "content": text} for text in texts]


def contents(messages):
    return [message["content"] for message in messages]


# pieces


@pytest.mark.parametrize(
    "text",
    ["", " ", "\n\n", "a", "One. Two! Three?", "x" * 1000, "a\n\n\nb\n", "  lead\r\nand  trail  ", "é.\u2028z. " * 90],
)
@pytest.mark.parametrize("longest", [3, 40, 400])
def test_pieces_joined_are_the_text_and_none_is_too_long(text, longest):
    found = cut(text, longest)
    assert "".join(found) == text
    assert all(len(piece.strip()) <= longest for piece in found)
    assert all(piece.strip() for piece in found) or not text.strip()


def call(name, what="find"):
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": name, "function": {"name": what, "arguments": "{}"}}],
    }


def result(name, text):
    return {"role": "tool", "tool_call_id": name, "content": text}


def test_a_call_keeps_its_results_or_goes_with_them():
    talk = talk_of([*user("Go."), call("a"), result("a", "one\ntwo"), call("b"), result("b", "three"), *user("So?")])
    assert talk.texts == ["Go.", "one\n", "two", "three"]
    assert talk.keep([2]) == [call("a"), result("a", "two"), *user("So?")]
    assert talk.keep([0]) == user("Go.", "So?")


def test_two_calls_of_one_message_are_one_group_and_an_empty_result_says_so():
    both = {**call("a"), "tool_calls": [*call("a")["tool_calls"], *call("b")["tool_calls"]]}
    talk = talk_of([both, result("b", "two"), result("a", "one"), *user("So?")])
    assert talk.keep([0]) == [both, result("b", "two"), result("a", OMITTED), *user("So?")]
    assert talk.keep([]) == user("So?")


def test_what_was_called_since_the_question_stays_and_may_lose_its_text():
    messages = [*user("Look it up."), call("a"), result("a", "one\ntwo")]
    talk = talk_of(messages)
    assert talk.question == "Look it up."
    assert talk.keep([]) == [*user("Look it up."), call("a"), result("a", OMITTED)]
    assert talk.keep([0, 1]) == messages


def test_the_older_forms_and_those_of_anthropic_are_groups_too():
    old = [
        {"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "4"},
    ]
    theirs = [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "5"}]},
    ]
    for pair in (old, theirs):
        talk = talk_of([*pair, *user("So?")])
        assert talk.question == "So?"
        assert talk.keep([]) == user("So?")
        assert talk.keep([0]) == [*pair, *user("So?")]
    talk = talk_of([*user("Ask."), *theirs])  # a result is no question
    assert talk.question == "Ask."


def test_parts_lose_their_text_and_keep_the_rest():
    picture = {"type": "image_url", "image_url": {"url": "x"}}
    content = [{"type": "text", "text": "one\ntwo"}, picture]
    talk = talk_of([{"role": "user", "content": content}, *user("So?")])
    assert talk.keep([1])[0]["content"] == [{"type": "text", "text": "two"}, picture]
    assert talk.keep([])[0]["content"] == "So?"


def test_a_message_without_text_stands_for_itself():
    talk = talk_of([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, *user("So?")])
    assert talk.texts == [""]
    assert talk.keep([0]) == list(talk.messages)


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([], "no messages"),
        (["text"], "message 0 is 'text'; give a mapping"),
        ([{"content": "no role"}], "give a mapping with role"),
        ([*user("a"), result("gone", "4")], "message 1 has the result of the call 'gone'"),
    ],
)
def test_what_is_no_conversation_is_refused(messages, why):
    with pytest.raises(InvalidInput, match=why):
        talk_of(messages)


def test_the_budget_has_to_hold_what_stays():
    system = {"role": "system", "content": "be brief"}
    with pytest.raises(InvalidInput, match="take 14 tokens, and the budget is 12; raise"):
        recency()(
            [
                system,
                *user(
                    "old",
                    "So?",
                ),
            ][:3],
            12,
            COUNT,
        )
    with pytest.raises(InvalidInput, match=r"a budget of 2\.5 tokens"):
        recency()(user("So?"), 2.5, COUNT)


def test_a_counter_counts_texts_calls_and_other_parts():
    assert COUNT(user("a b", "c")) == 3 + 4 + 2 + 4 + 1
    assert texts_of({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "x"}]}) == [
        "a",
        '{"type":"x"}',
    ]
    assert COUNT([call("a")]) == 3 + 4 + 1  # its JSON has no blank


# filling, exact to the token


@pytest.mark.parametrize("joins", [-1, 0, 2])
@pytest.mark.parametrize("seed", range(4))
def test_filling_is_within_the_budget_and_leaves_no_room_whatever_joining_pieces_costs(joins, seed):
    """A counter by which a message of n lines costs ``joins`` tokens more a line than the lines alone."""
    rng = np.random.default_rng(seed)
    lines = ["\n".join(" ".join("w" * int(rng.integers(1, 9))) for _ in range(6)) for _ in range(5)]
    messages = user(*lines, "So?")

    def count(given):
        return COUNT(given) + joins * sum(message["content"].rstrip().count("\n") for message in given)

    talk = talk_of(messages)
    for budget in range(count(user("So?")), count(messages) + 5, 7):
        chosen = filled(talk, in_order(rng.permutation(len(talk.pieces)).tolist()), budget, count)
        assert count(talk.keep(chosen)) <= budget
        rest = set(range(len(talk.pieces))) - set(chosen)
        if joins <= 0:  # the sum of the pieces is never too low, and the whole is counted before one is left out
            assert all(count(talk.keep([*chosen, number])) > budget for number in rest)


def test_a_budget_holds_by_the_template_of_a_real_model():
    transformers = pytest.importorskip("transformers")
    from budgeteer.models.thinker import thinker

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(thinker()))
    count = chat_counter(tokenizer)
    system = {"role": "system", "content": "Be brief, and add."}
    said = "The first number is 17.\nThe second one is 25, and odd.\n" * 6
    messages = [system, *user(said), call("a"), result("a", said), *user("What is 17 + 25?")]
    ids = tokenizer.apply_chat_template(messages, return_dict=False, add_generation_prompt=True)
    assert count(messages) == len(ids)
    least = count([system, *user("What is 17 + 25?")])
    for budget in range(least, count(messages) + 9, 23):
        for reduce in (random(), recency(), middle_out(), frugal(rarity)):
            assert count(reduce(messages, budget, count)) <= budget
        assert count(recency()(messages, budget, count)) > budget - 60  # a piece and what wraps a message are smaller
    assert recency()(messages, count(messages), count) == messages


def test_what_does_not_fit_is_passed_over_and_smaller_pieces_follow():
    order = by_score(lambda question, texts: -np.arange(float(len(texts))))
    messages = user("a", "b " * 50, "c", "So?")
    assert contents(order(messages, 3 + 15, COUNT)) == ["a", "c", "So?"]


def test_recency_is_one_run_and_middle_out_two_ends():
    messages = user("a", "b " * 50, "c", "d", "So?")
    assert contents(recency()(messages, 40, COUNT)) == ["c", "d", "So?"]
    assert contents(middle_out()(messages, 3 + 5 * 3, COUNT)) == ["a", "d", "So?"]
    assert contents(middle_out(1.0)(messages, 40, COUNT)) == ["a", "So?"]
    assert contents(recency()(messages, COUNT(messages), COUNT)) == contents(messages)


def test_random_differs_by_seed_and_repeats():
    messages = user(*[f"w{i}" for i in range(30)], "So?")
    one, two = (contents(random(seed)(messages, 60, COUNT)) for seed in (0, 1))
    assert one == contents(random(0)(messages, 60, COUNT))
    assert one != two


# scores


def test_bm25_is_the_formula():
    pytest.importorskip("bm25s")
    from budgeteer.context._bm25 import scores

    texts = ["red cats chase mice", "cats cats sleep", "dogs bark loudly today maybe", "birds"]
    k1, b = 1.2, 0.6
    mean = np.mean([4, 3, 5, 1])

    def term(times, length, having):
        idf = math.log(1 + (4 - having + 0.5) / (having + 0.5))
        return idf * times / (times + k1 * (1 - b + b * length / mean))

    wanted = [term(1, 4, 2) + term(1, 4, 1), term(2, 3, 2), 0.0, 0.0]
    np.testing.assert_allclose(scores("cats and mice", texts, k1, b), wanted, rtol=1e-5)
    assert scores("the", texts).tolist() == [0] * 4
    assert scores("cats", ["", " "]).tolist() == [0, 0]


def test_words_are_tf_idf():
    vectors = words(["cat cat dog", "dog"])
    assert vectors.tolist() == [[2 * math.log(3), math.log(2)], [0.0, math.log(2)]]


def test_rcr_ranks_by_role_stage_age_and_source():
    def item(text, **about):
        name = about.pop("name", None)
        return {"role": "user", "content": text, "metadata": about} | ({"name": name} if name else {})

    memory = [item("x", stage="plan", round=1), item("y", stage="find", round=1), item("z", round=3), *user("Go?")]
    room = 3 + 2 * 5  # the question and one item
    assert contents(rcr(words, stage="find")(memory, room, COUNT)) == ["y", "Go?"]  # .2 + .2/e against .2
    assert contents(rcr(words)(memory, room, COUNT)) == ["z", "Go?"]
    assert contents(rcr(words, role="x")(memory, room, COUNT)) == ["x", "Go?"]
    memory[0]["name"] = "planner"
    assert contents(rcr(words, uses="planner", rounds=100)(memory, room, COUNT)) == ["x", "Go?"]
    kept = rcr(words)(memory, 100, COUNT)
    assert len(kept) == 4
    assert not any("metadata" in message for message in kept)


# searches over combinations, against all of them


def utility(rng, n, redundant):
    worth, between = rng.random(n), redundant * np.triu(rng.random((n, n)), 1)
    return lambda choice: float(worth[list(choice)].sum() - between[np.ix_(choice, choice)].sum()) if choice else 0.0


def best(n, value, cost, budget):
    every = (
        c for k in range(1, n + 1) for c in itertools.combinations(range(n), k) if sum(cost[i] for i in c) <= budget
    )
    return max(map(value, every))


@pytest.mark.parametrize("redundant", [0.0, 0.6])
def test_the_tree_search_comes_close_to_the_best_combination(redundant):
    """Of all 2^8; with an additive value it may not be above the knapsack's optimum, which is that of all, too."""
    gaps, short = [], 0
    for seed in range(15):
        rng = np.random.default_rng(seed)
        cost, budget, value = rng.integers(1, 6, 8), 12, utility(rng, 8, redundant)

        def spent(choice, cost=cost):
            return int(cost[list(choice)].sum())

        def score(choices, value=value):
            return [value(choice) for choice in choices]

        scored = search(range(8), spent, score, budget, 60, 0.3, 0.0)
        assert all(cost[list(choice)].sum() <= budget for choice in scored)
        top, found = best(8, value, cost, budget), max(scored, key=scored.__getitem__)
        gaps.append(1 - scored[found] / top)
        short += budget - cost[list(found)].sum() >= cost.min()
    assert min(gaps) >= -1e-12
    assert np.mean(gaps) < 0.03
    if redundant:
        assert short  # an optimum that leaves room: fewer pieces are worth more


def test_carrot_finds_the_best_order_of_pieces():
    """A reranker that reads on from one fact to the next, against every ordered choice within the budget."""
    follows = {("a", "c"): 3.0, ("c", "b"): 2.0, ("b", "d"): 1.5, ("d", "a"): 0.5}

    def value(text):
        said = text.split()
        return 0.1 * len(said) + sum(follows.get(pair, -0.2) for pair in itertools.pairwise(said))

    messages = [{"role": "user", "content": "a\nb\nc\nd"}, {"role": "user", "content": "So?"}]
    rerank = lambda question, texts: np.array([value(text) for text in texts])  # noqa: E731
    for words_left in (2, 3, 4):
        budget = COUNT([{"role": "user", "content": "a\n" * words_left}, messages[1]])
        orders = [order for n in range(1, words_left + 1) for order in itertools.permutations("abcd", n)]
        wanted = max(orders, key=lambda order: value(" ".join(order)))
        found = carrot(rerank, iterations=80, explore=0.5, frugality=0.0, orders=True)(messages, budget, COUNT)
        assert tuple(found[0]["content"].split()) == wanted
        assert COUNT(found) <= budget
        plain = carrot(rerank, iterations=80, explore=0.5, frugality=0.0)(messages, budget, COUNT)
        assert list(plain[0]["content"].split()) == sorted(plain[0]["content"].split())
        assert value(plain[0]["content"]) <= value(found[0]["content"])
    ends = carrot(lambda question, texts: np.array([float(len(text)) for text in texts]), orders=True)
    assert ends(messages, 100, COUNT) == messages  # what stands as it stood is not touched
    two = [{"role": "user", "content": "d\nb"}, {"role": "user", "content": "a\nc"}, messages[1]]
    found = carrot(rerank, iterations=80, explore=0.5, frugality=0.0, orders=True)(two, 100, COUNT)
    assert [message["content"].split() for message in found] == [["b", "d"], ["a", "c"], ["So?"]]  # each at its place


def test_carrot_scores_no_order_that_parts_of_a_message_cannot_have():
    parts = [{"type": "text", "text": "Alpha one."}, {"type": "text", "text": "Beta two."}]
    seen = []

    def rerank(question, texts):
        seen.extend(texts)
        return np.array([float(len(text)) for text in texts])

    carrot(rerank, orders=True)([{"role": "user", "content": parts}, *user("Which?")], 100, COUNT)
    assert "Alpha one.\nBeta two.\n" in seen
    assert "Beta two.\nAlpha one.\n" not in seen


def test_carrot_and_marginal_leave_out_what_distracts():
    messages = user("The cat is big.", "Rain fell in May.", "A cat likes fish.", "How big is the cat?")
    for reduce in (carrot(cosine(words)), marginal(cosine(words))):
        kept = contents(reduce(messages, 200, COUNT))
        assert "The cat is big." in kept
        assert "Rain fell in May." not in kept


def test_marginal_stops_where_nothing_gains_and_scores_each_combination_once():
    asked = []

    def rerank(question, texts):
        asked.extend(texts)
        return np.array([-abs(len(text.split()) - 4) for text in texts])

    messages = user("a a", "b b", "c c", "So?")
    assert contents(marginal(rerank)(messages, 100, COUNT)) == ["a a", "b b", "So?"]
    assert len(asked) == 3 + 2 + 1


# words


def test_words_of_the_highest_weight_stay_in_their_order():
    spans = {"the red cat sat": [(0, 3, 0.1), (4, 7, 2.0), (8, 9, 1.0), (9, 11, 1.5), (12, 15, 1.0)]}
    assert [word.weight for word in weighted("the red cat sat", spans["the red cat sat"])] == [0.1, 2.0, 2.5, 1.0]
    reduce = frugal(lambda texts: [spans[text] for text in texts])
    assert contents(reduce(user("the red cat sat", "So?"), 3 + 5 + 6, COUNT)) == ["red cat ", "So?"]
    assert contents(reduce(user("the red cat sat", "So?"), 100, COUNT)) == ["the red cat sat", "So?"]


def test_rarity_counts_over_all_texts():
    ((_, _, often), _), ((_, _, again),) = rarity(["cat mouse", "cat"])
    assert often == again == math.log(3 / 2)


def test_self_information_reads_the_conversation_as_one_text():
    seen = []

    def surprise(text):
        seen.append(text)
        return [(0, 1, 1.0), (2, 3, 9.0), (4, 5, 8.0)]

    kept = self_information(surprise)(user("a\nb", "c", "So?"), 3 + 5 + 4 + 1 + 5, COUNT)
    assert seen == ["a\nb\nc\n"]
    assert contents(kept)[-1] == "So?"
    assert contents(kept)[0] == "b"


def test_surprise_of_a_model_is_its_log_probability():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from budgeteer.context._self_information import surprise_by
    from budgeteer.models.thinker import thinker

    folder = str(thinker())
    text = "What is 17 + 25? The sum of both is 42, as is known."
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        loss = float(model(input_ids=torch.tensor([ids]), labels=torch.tensor([ids])).loss)
    spans = surprise_by(folder)(text)
    assert spans[0][2] == math.inf
    assert np.mean([weight for _, _, weight in spans[1:]]) == pytest.approx(loss, rel=1e-3)
    assert "".join(text[a:b] for a, b, _ in spans) == text
    windows = surprise_by(folder, window=8)(text)  # every token but the first has a weight, from a window before it
    assert all(math.isfinite(weight) for _, _, weight in windows[1:])
    assert [w for _, _, w in windows[1:8]] == pytest.approx(
        [w for _, _, w in spans[1:8]], rel=0.1, abs=0.01
    )  # half precision


@pytest.fixture(scope="module")
def bert():
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, attn_implementation="eager", initializer_range=0.5,
    )  # fmt: skip
    return transformers.BertModel(config).eval()


def vectors_of_pairs(layer, attention, state):
    """What each token puts into each state, [T, T, d], after the first normalisation and after both: with loops."""
    heads, tokens, _ = attention.shape
    inner, outer = layer.attention.self, layer.attention.output
    width = inner.value.weight.shape[0] // heads
    first = state.new_zeros(tokens, tokens, state.shape[1])
    for i in range(tokens):
        for j in range(tokens):
            for h in range(heads):
                part = slice(h * width, (h + 1) * width)
                value = inner.value.weight[part] @ state[j]
                first[i, j] += attention[h, i, j] * (outer.dense.weight[:, part] @ value)
        first[i, i] += state[i]
    before = first.sum(1)
    middle = outer.LayerNorm(before)
    last = layer.output.dense(layer.intermediate(middle)) + middle

    def normed(parts, whole, norm):
        deviation = (whole.var(-1, unbiased=False) + norm.eps).sqrt()[:, None, None]
        return (parts - parts.mean(-1, keepdim=True)) / deviation * norm.weight

    first = normed(first, before, outer.LayerNorm)
    return first, normed(first, last, layer.output.LayerNorm)


def test_globenc_has_the_norms_of_the_vectors_that_a_layer_is_made_of(bert):
    """Without biases (a fresh model has none) the vectors of all tokens sum to the output of a normalisation."""
    import torch

    from budgeteer.context.attribution import norms, rollout

    ids = torch.tensor([[1, 5, 9, 7, 2]])
    seen = {}
    layer = bert.encoder.layer[0]
    hook = layer.attention.register_forward_hook(lambda module, given, made: seen.update(out=made[0]))
    with torch.no_grad():
        for norm in (layer.attention.output.LayerNorm, layer.output.LayerNorm):
            norm.weight.uniform_(0.5, 2.0)
        output = bert(input_ids=ids, output_attentions=True, output_hidden_states=True)
        hook.remove()
        given = layer, output.attentions[0][0], output.hidden_states[0][0]
        first, last = vectors_of_pairs(*given)
        assert torch.allclose(first.sum(1), seen["out"][0], atol=1e-5)
        expected, found = last.norm(dim=-1).double(), norms(*given)
        assert torch.allclose(found / found.sum(1, keepdim=True), expected / expected.sum(1, keepdim=True), rtol=1e-5)
        # without the network the second normalisation would see these vectors alone, too
        kept = layer.output.dense.weight.clone()
        layer.output.dense.weight.zero_()
        _, last = vectors_of_pairs(*given)
        assert torch.allclose(last.sum(1), layer.output.LayerNorm(seen["out"][0]), atol=1e-5)
        layer.output.dense.weight.copy_(kept)
        share = rollout(bert, input_ids=ids, attention_mask=torch.ones_like(ids))
    assert share.shape == (5,)
    assert float(share.sum()) == pytest.approx(1.0)
    assert float(share.min()) > 0


def parts_by_loops(bert, attentions, states):
    """DecompX with a loop over every state, token and head, of vectors one at a time."""
    import torch

    tokens = states[0].shape[0]

    def share(parts, bias):
        sizes = [abs(float(part @ bias)) for part in parts]
        return [part + size / sum(sizes) * bias for part, size in zip(parts, sizes, strict=True)]

    def normed(parts, norm):
        whole = sum(parts)
        deviation = torch.sqrt(((whole - whole.mean()) ** 2).mean() + norm.eps)
        return share([(part - part.mean()) / deviation * norm.weight for part in parts], norm.bias)

    now = [[states[0][i] if i == k else torch.zeros_like(states[0][i]) for k in range(tokens)] for i in range(tokens)]
    for layer, attention in zip(bert.encoder.layer, attentions, strict=True):
        inner, outer = layer.attention.self, layer.attention.output
        width, made = inner.value.weight.shape[0] // len(attention), []
        for i in range(tokens):
            parts = []
            for k in range(tokens):
                heads = [
                    sum(attention[h, i, j] * (inner.value.weight @ now[j][k]) for j in range(tokens))[
                        h * width : (h + 1) * width
                    ]
                    for h in range(len(attention))
                ]
                parts.append(outer.dense.weight @ torch.cat(heads))
            parts = share(parts, outer.dense.weight @ inner.value.bias + outer.dense.bias)
            parts = normed([part + before for part, before in zip(parts, now[i], strict=True)], outer.LayerNorm)
            wide = share([layer.intermediate.dense.weight @ part for part in parts], layer.intermediate.dense.bias)
            slope = torch.nn.functional.gelu(sum(wide)) / sum(wide)
            out = share([layer.output.dense.weight @ (part * slope) for part in wide], layer.output.dense.bias)
            made.append(normed([a + b for a, b in zip(out, parts, strict=True)], layer.output.LayerNorm))
        now = made
    return torch.stack([torch.stack(parts) for parts in now])


def test_decompx_has_the_parts_whose_sum_is_the_final_state(bert, monkeypatch):
    import torch

    from budgeteer.context.decomposition import decomposed, lengths

    ids = torch.tensor([[1, 5, 9, 7, 2]])
    with torch.no_grad():
        for name, weight in bert.named_parameters():
            if "LayerNorm.weight" in name:
                weight.uniform_(0.5, 2.0)
            elif weight.dim() == 1:  # biases, which a fresh model has not
                weight.normal_(0, 0.3)
            elif "encoder" in name:
                weight.mul_(8)
        output = bert(input_ids=ids, output_attentions=True, output_hidden_states=True)
        found = decomposed(bert, input_ids=ids)
        wanted = parts_by_loops(bert, [each[0] for each in output.attentions], [s[0] for s in output.hidden_states])
    assert torch.allclose(found.sum(1), output.last_hidden_state[0], atol=1e-4)
    assert torch.allclose(found, wanted, atol=1e-4)
    assert len(bert.encoder.layer) > 1
    monkeypatch.setattr("budgeteer.context.decomposition.AT_ONCE", 2 * 5 * 24)  # two states at a time, and then one
    assert torch.allclose(decomposed(bert, input_ids=ids), found, atol=1e-6)
    share = lengths(bert, input_ids=ids)
    assert torch.allclose(share, found[0].norm(dim=-1) / found[0].norm(dim=-1).sum())
    assert float(share.sum()) == pytest.approx(1.0)


def test_an_encoder_attributes_by_either_method(bert, tmp_path):
    transformers = pytest.importorskip("transformers")
    from budgeteer.context.attribution import attribute_of

    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "the", "cat", "sat"]))
    transformers.BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    bert.save_pretrained(tmp_path)
    (globenc,), (decompx,) = (attribute_of("frugal", f"{by}{tmp_path}")(["the cat sat"]) for by in ("", "decompx:"))
    assert [place[:2] for place in globenc] == [place[:2] for place in decompx]
    assert [w for *_, w in globenc] != [w for *_, w in decompx]
    assert registry.part_of("reducer", f"frugal:attribute=decompx:{tmp_path}")


def test_globenc_of_a_folder_scales_each_text(bert, tmp_path):
    transformers = pytest.importorskip("transformers")
    from budgeteer.context.attribution import attribute_of

    words_of_it = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "the", "cat", "sat", "##s", "down"]
    (tmp_path / "vocab.txt").write_text("\n".join(words_of_it))
    transformers.BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    bert.save_pretrained(tmp_path)
    attribute = attribute_of("frugal", str(tmp_path))
    one, alone = attribute(["the cats sat", "down"])
    assert [(begin, end) for begin, end, _ in one] == [(0, 3), (4, 7), (7, 8), (9, 12)]
    assert (min(w for *_, w in one), max(w for *_, w in one)) == (0.0, 1.0)
    assert [w for *_, w in alone] == [1.0]
    with pytest.raises(InvalidInput, match="an encoder of BERT's build"):
        attribute_of("frugal", str(registry.resolve("budgeteer.models.thinker:thinker")()))


# summaries


def test_a_summary_stands_after_the_system_message_and_is_cut_to_fit():
    system = {"role": "system", "content": "be brief"}
    given = []

    def summarise(dropped, question, tokens):
        given.append((dropped, question, tokens))
        return "word " * 500

    messages = [system, *user("a " * 100, "b " * 6, "So?")]
    kept = summary(summarise)(messages, 60, COUNT)
    assert [message["role"] for message in kept] == ["system", "user", "user", "user"]
    assert contents(kept)[1].startswith("Summary of what was said before:\nword word")
    assert COUNT(kept) == 60
    ((dropped, question, tokens),) = given
    assert dropped.strip() == ("a " * 100).strip()
    assert question == "So?"
    assert tokens == 60 - COUNT([system, *user("Summary of what was said before:", "b " * 6, "So?")])
    assert summary(summarise)(messages, 10_000, COUNT) == messages
    assert len(given) == 1  # nothing was dropped, so nobody was asked
    with pytest.raises(InvalidInput, match="returns a text"):
        summary(lambda *given: None)(messages, 60, COUNT)


# names and options


def test_options_are_read_from_a_name():
    assert encode_of("mmr", "words") is words
    texts = ["a cat", "a dog"]
    assert rerank_of("carrot", "words")("cat", texts)[0] > 0
    reduce = registry.part_of("reducer", "mmr:encode=words,balance=0.5")
    assert contents(reduce(user(*texts, "Which cat?"), 14 + 2, COUNT))[-1] == "Which cat?"
    with pytest.raises(InvalidInput, match="mmr:encode="):
        registry.part_of("reducer", "mmr")
    with pytest.raises(UnknownName):
        registry.part_of("reducer", "bm24")
    assert registry.part_of("reducer", "summary:summarise=builtins:str")
    with pytest.raises(InvalidInput, match=r"give first, or package\.module:function"):
        registry.part_of("reducer", "summary:summarise=nowhere:f")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("middle-out", {"first": 2}), ("random", {"seed": -1}), ("mmr", {"encode": "words", "balance": -1}),
        ("diverse", {"encode": "words", "kinds": 0}), ("carrot", {"rerank": "words", "iterations": 0}),
        ("rcr", {"encode": "words", "rounds": 0}), ("summary", {"summarise": "first", "share": 1}),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(name, options):
    with pytest.raises(InvalidInput, match=f"{name}:"):
        registry.make("reducer", name, **options)


@pytest.mark.parametrize("method", registry.of("reducer").values(), ids=lambda method: method.name)
def test_each_is_run_by_the_lines_that_methods_shows(method, capsys):
    try:
        exec(run_of(method), {})
    except ImportError as error:
        pytest.skip(str(error))
    assert 1 <= int(capsys.readouterr().out) <= 3


# nothing to choose from, and scorers that say nothing


@pytest.mark.parametrize("question", ["", "  "])
@pytest.mark.parametrize("name", ["random", "recency", "middle-out", "mmr:encode=words", "carrot:rerank=words"])
def test_an_empty_question_is_within_the_budget_and_stays(name, question):
    messages = user("a cat sat there", "a dog", question)
    kept = registry.part_of("reducer", name)(messages, COUNT(messages) - 2, COUNT)
    assert COUNT(kept) <= COUNT(messages) - 2
    assert kept[-1] == messages[-1]


@pytest.mark.parametrize("name", ["random", "recency", "bm25", "mmr:encode=words", "marginal:rerank=words"])
def test_documents_without_text_are_dropped_or_kept_as_they_are(name):
    if name == "bm25":
        pytest.importorskip("bm25s")
    messages = [*user("", "  "), {"role": "user", "content": None}, *user("So?")]
    kept = registry.part_of("reducer", name)(messages, 100, COUNT)
    assert kept[-1] == messages[-1]
    assert all(message in messages for message in kept)


@pytest.mark.parametrize(
    "given", [None, [], np.zeros((0, 3)), np.ones((2, 3)), np.full((3, 3), np.nan), np.ones(3), "text"], ids=range(7)
)
@pytest.mark.parametrize("make", [mmr, diverse, rcr, lambda encode: carrot(cosine(encode))], ids=range(4))
def test_an_encoder_that_finds_nothing_is_an_error(make, given):
    with pytest.raises(InvalidInput, match=r"the encoder gave .* for 3 texts .* return a vector of finite numbers"):
        make(lambda texts: given)(user("a cat", "a dog", "Which cat?"), 100, COUNT)


@pytest.mark.parametrize("given", [None, [], [1.0], [math.nan, 1.0], [math.inf, 1.0], [[1.0], [2.0]]], ids=range(6))
@pytest.mark.parametrize("make", [carrot, marginal, by_score], ids=range(3))
def test_a_reranker_that_finds_nothing_is_an_error(make, given):
    with pytest.raises(InvalidInput, match=r"the scorer gave .* for 2 texts; return a finite number for each"):
        make(lambda question, texts: given)(user("a cat", "a dog", "Which cat?"), 100, COUNT)


@pytest.mark.parametrize(
    ("reduce", "count", "match"),
    [
        (mmr("words"), COUNT, r"encode is 'words'; give a function.*registry.make\('reducer', NAME, encode="),
        (marginal("words"), COUNT, "rerank is 'words'; give a function"),
        (recency(), 9, "the counter is of type int; give a function from messages to tokens"),
    ],
)
def test_a_name_or_a_number_in_place_of_a_function_is_an_error(reduce, count, match):
    with pytest.raises(InvalidInput, match=match):
        reduce(user("a cat", "a dog", "Which cat?"), 100, count)


def test_context_inside_the_question_is_told_where_it_belongs():
    with pytest.raises(InvalidInput, match=r"What may be left out goes into messages before the question"):
        recency()(user("a cat " * 50 + "Which cat?"), 20, COUNT)


def test_a_tokenizer_is_no_counter_and_one_without_a_template_counts_no_chat():
    class Base:
        chat_template = None

        def apply_chat_template(self, messages): ...

    with pytest.raises(InvalidInput, match=r"the counter is of type Base; .*chat_counter"):
        recency()(user("a", "b"), 20, Base())
    with pytest.raises(InvalidInput, match="Base has no chat template"):
        chat_counter(Base())


def test_attributions_of_other_texts_or_without_a_weight_are_errors():
    messages = user("a cat", "a dog", "Which cat?")
    with pytest.raises(InvalidInput, match="tokens of 0 texts, and there are 2; return a list for each"):
        frugal(lambda texts: [])(messages, 100, COUNT)
    assert contents(frugal(lambda texts: [[], []])(messages, 100, COUNT)) == contents(messages)
    with pytest.raises(InvalidInput, match=r"the token 'a' has no weight \(NaN\)"):
        self_information(lambda text: [(0, 1, math.nan)])(messages, 100, COUNT)


def test_what_fits_stays_as_it_is_blank_texts_and_empty_lists_too():
    talk = [*user("   \n", "a cat"), {"role": "user", "content": []}, *user("What?")]
    for reduce in (frugal(rarity), self_information(lambda text: []), recency(), mmr(words)):
        assert reduce(talk, 99, COUNT) == talk


def test_rarity_weighs_the_words_where_they_stand_whatever_their_letters_become():
    (spans,) = rarity(["İİİİ cat"])
    assert ["İİİİ cat"[begin:end] for begin, end, _ in spans] == ["İİİİ", "cat"]


@pytest.mark.parametrize(
    ("messages", "match"),
    [
        (None, "the messages are of type NoneType; give a list"),
        ((message for message in user("a", "b")), "of type generator"),
        ([{"role": "user", "content": b"abc"}, *user("b")], "message 0 has a content with \"b'abc'\" of type bytes"),
        ([*user("a"), {"role": "user", "content": [{"type": "text", "text": "a"}, 5]}], "message 1 .* '5' of type int"),
    ],
)
def test_what_no_endpoint_takes_is_refused_and_named(messages, match):
    with pytest.raises(InvalidInput, match=match):
        recency()(messages, 50, COUNT)


@pytest.mark.parametrize("given", [None, -1, 1.5, math.nan])
def test_a_counter_that_counts_no_tokens_is_refused(given):
    """By a NaN every prompt was within its budget."""
    for reduce in (recency(), mmr(words), summary(lambda *_: "a"), frugal(rarity), carrot(cosine(words))):
        with pytest.raises(InvalidInput, match="the counter gave"):
            reduce(user("a b", "c"), 5, lambda messages: given)
    assert recency()(user("a b", "c"), 50, lambda messages: np.int64(5)) == user("a b", "c")
