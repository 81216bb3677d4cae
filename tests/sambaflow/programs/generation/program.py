"""Generates with a GPT-2 whose step is a session's: the calls of SambaFlow's generative inference, told again."""

import sys

import sambaflow.samba.utils as utils
import torch
from configuration.patch import patched
from sambaflow import samba
from sambaflow.samba.utils.argparser import parse_app_args
from torch.nn import functional as F  # noqa: N812
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions
from utils.prompts import decode, encode, read


def common(parser):
    parser.add_argument("--config_name", type=str)
    parser.add_argument("--max_seq_length", type=int, default=-1)


def of_run(parser):
    parser.add_argument("--data_dir", type=str)
    parser.add_argument("--max_tokens_to_generate", type=int, default=20)
    parser.add_argument("--checkpoint_name", type=str, default="")


def named(ids, mask, length):
    positions = torch.arange(length).short().unsqueeze(0).expand(ids.shape)
    return (
        samba.from_torch_tensor(ids.int(), name="input_ids"),
        None,
        samba.from_torch_tensor(mask[:, None, :].to(torch.float32), name="attention_mask"),
        None,
        samba.from_torch_tensor(positions, name="input_position_ids"),
        None,
        None,
        None,
    )


def generate(args, model, traced_outputs):
    if args.checkpoint_name:
        model.load_state_dict(torch.load(args.checkpoint_name))
        samba.session.to_rdu(model)

    def step(self, *inputs, **kwargs):
        ids = kwargs["input_ids"]
        rest = (0, args.max_seq_length - ids.shape[1])
        logits = samba.session.run(
            input_tensors=named(F.pad(ids, rest), F.pad(kwargs["attention_mask"], rest), args.max_seq_length),
            output_tensors=traced_outputs,
            hyperparam_dict={"p": 0.0},
            section_types=["fwd"],
        )[0]
        logits = samba.to_torch(logits)[:, : ids.shape[1], :].float()
        return CausalLMOutputWithCrossAttentions(loss=None, logits=logits)

    cls = model.__class__
    cls.__torch_call__ = cls.__call__
    cls.__call__ = step
    for prompt in read(args.data_dir):
        ids = torch.tensor([encode(prompt)])
        made = model.generate(ids, max_length=ids.shape[-1] + args.max_tokens_to_generate, pad_token_id=0)
        yield decode(made.squeeze(0))


def main(argv):
    args = parse_app_args(argv=argv, common_parser_fn=common, run_parser_fn=of_run)
    model = patched(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(args.config_name)))
    samba.from_torch_model_(model)
    shape = (args.batch_size, args.max_seq_length)
    mask = torch.randint(2, shape, dtype=torch.bfloat16)
    inputs = named(torch.randint(0, 90, shape), mask, args.max_seq_length)
    if args.command == "compile":
        samba.session.compile(model, inputs, app_dir=samba.utils.get_file_dir(__file__), inference=args.inference)
    elif args.command == "run":
        traced_outputs = utils.trace_graph(model, inputs, pef=args.pef)
        print(*generate(args, model, traced_outputs), sep=f"\n{'-' * 20}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
