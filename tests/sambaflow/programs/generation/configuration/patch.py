"""Layers of GPT-2 that keep their weights the other way round, as patches for SambaFlow do."""

import torch
import transformers
from sambaflow import samba
from sambaflow.logging import samba_logger
from sambaflow.samba.directives import op_fusion
from sambaflow.samba.nn.parameter import SambaParameter
from torch import nn


def turned(weight):
    if isinstance(weight, SambaParameter):
        return SambaParameter(
            shape=reversed(weight.shape),
            dtype=weight.dtype,
            materializer=lambda _: weight.torch_tensor().transpose(1, 0),
            requires_grad=weight.requires_grad,
        )
    assert isinstance(weight, torch.Tensor)
    return nn.Parameter(data=weight.transpose(1, 0), requires_grad=weight.requires_grad)


def product(self, x):
    samba_logger.warning("turned weights", log_limit=1)
    return samba.addmm(self.bias, x, self.weight, is_transposed=True)


def logits_alone(
    self,
    input_ids=None,
    past_key_values=None,
    attention_mask=None,
    token_type_ids=None,
    position_ids=None,
    head_mask=None,
    inputs_embeds=None,
    encoder_hidden_states=None,
    labels=None,
):
    hidden = self.transformer(
        input_ids,
        past_key_values=past_key_values,
        attention_mask=attention_mask,
        token_type_ids=token_type_ids,
        position_ids=position_ids,
        head_mask=head_mask,
        inputs_embeds=inputs_embeds,
        use_cache=self.config.use_cache,
        output_attentions=None,
        return_dict=None,
    )[0]
    return (self.lm_head(hidden),)


def patched(model):
    model.forward = logits_alone.__get__(model, transformers.models.gpt2.modeling_gpt2.GPT2LMHeadModel)
    for block in model.transformer.h:
        length = block.attn.bias.shape[-1]
        assert block.attn.bias.shape == (1, 1, length, length)
        block.attn.bias = block.attn.bias.expand((1, 1, length, length))
        for layer in (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj):
            layer.weight = turned(layer.weight)
            layer.forward = product.__get__(layer, transformers.modeling_utils.Conv1D)
        op_fusion(block, "Encoder")
    return model
