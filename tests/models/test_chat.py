"""Chats: tags of thinking from templates, how a template is told how to think, and what is begun."""

from __future__ import annotations

import pytest

from budgeteer.core.errors import InvalidInput
from budgeteer.models.chat import (
    BY_ITSELF,
    THINK,
    Chat,
    Message,
    Thinking,
    contents,
    continued,
    switch_of,
    tags_of,
    template_options,
    written,
)

# lines of the models' own templates
QWEN3 = """{%- if '</think>' in content %}{%- set reasoning_content = content.split('</think>')[0] %}{%- endif %}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"""
R1 = "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<think>\\n'}}"
GPT_OSS = """{{- "Reasoning: " + reasoning_effort + "\\n" }}{{- "<|start|>assistant<|channel|>analysis<|message|>" }}"""
MAGISTRAL = "{{ '[THINK]' + block['thinking'] + '[/THINK]' }}"
SEED = "{%- set think_end = '</seed:think>' %}"
GRANITE = "{%- if thinking %}{{ 'Respond to every user query in a thoughtful way.' }}{%- endif %}"
LLAMA = "{{ '<|start_header_id|>' + message['role'] }}"


def test_tags_are_read_from_the_template_or_the_vocabulary() -> None:
    closes = [tags and tags.close for tags in map(tags_of, (QWEN3, R1, GPT_OSS, MAGISTRAL, SEED, GRANITE, LLAMA))]
    final = "<|channel|>final<|message|>"
    assert closes == ["</think>", "</think>", final, "[/THINK]", "</seed:think>", None, None]
    assert tags_of(LLAMA, frozenset({"<think>", "</think>"})) == THINK
    assert tags_of(LLAMA, frozenset({"</think>"})) is None
    gpt_oss = tags_of(GPT_OSS)
    assert gpt_oss is not None
    assert gpt_oss.end.endswith(gpt_oss.close)


def test_a_template_is_told_only_what_it_reads() -> None:
    assert [switch_of(t) for t in (QWEN3, GRANITE, R1, MAGISTRAL)] == ["enable_thinking", "thinking", None, None]
    assert template_options(BY_ITSELF, LLAMA, "m") == {}
    assert template_options(Thinking(on=False), QWEN3, "m") == {"enable_thinking": False}
    assert template_options(Thinking(on=True), GRANITE, "m") == {"thinking": True}
    assert template_options(Thinking(effort="low"), GPT_OSS, "m") == {"reasoning_effort": "low"}
    for thinking, template, match in (
        (Thinking(on=False), R1, "cannot turn the thinking off"),
        (Thinking(effort="low"), QWEN3, "does not read reasoning_effort, so 'low' would change nothing"),
        (Thinking(task=20_000), QWEN3, "m cannot be told a budget of the task"),
        (Thinking(tokens=9), QWEN3, "m takes no thinking budget .* such as budget-forcing"),
    ):
        with pytest.raises(InvalidInput, match=match):
            template_options(thinking, template, "m")
    with pytest.raises(InvalidInput, match="-1 tokens"):
        Thinking(tokens=-1)
    with pytest.raises(InvalidInput, match="without messages"):
        Chat(())


def test_what_is_begun_follows_the_rendered_chat() -> None:
    chat = Chat((Message("system", "s"), Message("user", "u")))
    assert contents(chat) == ["s", "u"]
    assert contents(continued(continued(chat, "a"), "b")) == ["s", "u", "ab"]
    assert written("P", "<think>\nso", THINK) == "P<think>\nso"
    # thinking that was cut before its first token is opened, unless the template has done that
    for begun in ("\n</think>\n\n4", "</think>\n\n4"):
        assert written("P", begun, THINK) == written("P<think>\n", begun, THINK) == "P<think>\n\n</think>\n\n4"
    assert written("P", "\n</think>\n\n4", None) == "P\n</think>\n\n4"
