"""A Modelfile for Ollama: the chat template in Go's template language, where a turn ends, and how replies are drawn.

`GO_TEMPLATE` renders what `data.template.CHAT_TEMPLATE` renders, reasoning and tools included, but for two things of
Ollama's own: it writes JSON without blanks after `,` and `:`, and joins neighbouring turns of one role. A talk that
ends with an answer asks to go on with it.
"""

from __future__ import annotations

import json
from typing import Any

from transformers import PreTrainedTokenizerBase

from buddygpt.data.formats.tools import OFFER
from buddygpt.data.template import CHAT_TEMPLATE
from buddygpt.model.generation import stop_ids
from buddygpt.model.modeling import BuddyGPTForCausalLM
from buddygpt.model.sampling import Sampling
from buddygpt.recipe.errors import BuddyError

MODELFILE = "Modelfile"
GO_TEMPLATE = """\
{{- define "offer" }}OFFER
<tools>
{{ range . }}{{ .Function }}
{{ end }}</tools>{{ end }}
{{- $before := "" }}
{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 }}
{{- if and (eq $before "tool") (ne .Role "tool") }}<|im_end|>
{{ end }}
{{- if and $.Tools (eq $i 0) (ne .Role "system") }}<|im_start|>system
{{ template "offer" $.Tools }}<|im_end|>
{{ end }}
{{- if eq .Role "assistant" }}<|im_start|>assistant
{{ if .Thinking }}<think>
{{ .Thinking }}
</think>

{{ end }}
{{- .Content }}
{{- $apart := .Content }}
{{- range .ToolCalls }}{{ if $apart }}
{{ end }}<tool_call>
{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
</tool_call>
{{- $apart = "yes" }}
{{- end }}
{{- if not $last }}<|im_end|>
{{ end }}
{{- else if eq .Role "tool" }}
{{- if ne $before "tool" }}<|im_start|>user{{ end }}
<tool_response>
{{ .Content }}
</tool_response>
{{- if $last }}<|im_end|>
{{ end }}
{{- else }}<|im_start|>{{ .Role }}
{{ .Content }}
{{- if and $.Tools (eq $i 0) (eq .Role "system") }}

{{ template "offer" $.Tools }}
{{- end }}<|im_end|>
{{ end }}
{{- if and $last (ne .Role "assistant") }}<|im_start|>assistant
{{ end }}
{{- $before = .Role }}
{{- end }}""".replace("OFFER", OFFER)
BASE_TEMPLATE = "{{ .Prompt }}"


def see_template(tokenizer: PreTrainedTokenizerBase | None) -> None:
    """See that the model's chat template, if it has one, is the one that is written here in Go too.

    Raises:
        BuddyError: it is another.
    """
    if tokenizer is not None and tokenizer.chat_template not in (None, CHAT_TEMPLATE):
        raise BuddyError(
            "the model's chat template is not buddygpt's, which alone is known in Ollama's language; write --to gguf, "
            "and a Modelfile with its TEMPLATE by hand"
        )


def modelfile(model: BuddyGPTForCausalLM, tokenizer: PreTrainedTokenizerBase, file: str) -> str:
    """The text of a Modelfile.

    Args:
        model: asked for its context, its ends and how it is sampled.
        tokenizer: with a chat template it is a chat model's.
        file: name of the GGUF file beside the Modelfile.
    """
    settings: Any = model.generation_config
    drawn = Sampling()
    ends = sorted(stop_ids(model, tokenizer))
    parameters = [("stop", json.dumps(str(tokenizer.convert_ids_to_tokens(end)))) for end in ends]
    parameters += [
        ("num_ctx", str(model.config.max_position_embeddings)),
        ("temperature", f"{getattr(settings, 'temperature', None) or drawn.temperature:g}"),
        ("top_p", f"{getattr(settings, 'top_p', None) or drawn.top_p:g}"),
        ("top_k", "0"),  # Ollama's own defaults would cut and punish what `buddy chat` does not
        ("min_p", "0"),
        ("repeat_penalty", "1"),
    ]
    template = GO_TEMPLATE if tokenizer.chat_template else BASE_TEMPLATE
    lines = [
        f"FROM ./{file}",
        f'TEMPLATE """{template}"""',
        *(f"PARAMETER {name} {value}" for name, value in parameters),
    ]
    return "\n".join(lines) + "\n"
