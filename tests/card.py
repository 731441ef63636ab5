"""A card that is none: tensors "on" it have real numbers, which live on the CPU.

`with Card() as card:` makes the device `meta` such a card. `card.put(model)` and `x.to("meta")`
move there. As on a real card, an operation that mixes tensors of the card with tensors of the CPU
is an error (single numbers and indices into a card's tensor excepted), and what lies on the card
cannot become a NumPy array. `card.copies` lists what was brought back to the CPU."""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

aten = torch.ops.aten
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
INDEXING |= {aten._index_put_impl_.default, aten._unsafe_index.Tensor}


class OnCard(torch.Tensor):
    "A tensor of the card; `real` has its numbers."

    @staticmethod
    def __new__(cls, real):
        shape = dict(strides=real.stride(), storage_offset=real.storage_offset())
        kind = dict(dtype=real.dtype, layout=real.layout, requires_grad=real.requires_grad)
        made = torch.Tensor._make_wrapper_subclass(cls, real.shape, device="meta", **shape, **kind)
        made.real_numbers = real
        return made

    def __repr__(self):
        return f"OnCard({self.real_numbers})"

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return Card.current.run(function, args, kwargs or {})


class Made(TorchFunctionMode):
    "Tensors made of numbers for the card, which torch does not dispatch."

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function in (torch.tensor, torch.as_tensor):
            device = kwargs.get("device")
            if device is not None and torch.device(device).type == "meta":
                if isinstance(args[0], OnCard):
                    return function(*args, **kwargs)
                return OnCard(function(*args, **dict(kwargs, device="cpu")))
        if function is torch.Tensor.tolist and isinstance(args[0], OnCard):
            Card.current.copies.append(("tolist", tuple(args[0].shape)))
            return args[0].real_numbers.tolist()
        if function is torch.Tensor.new_tensor and isinstance(args[0], OnCard):
            device = torch.device(kwargs.get("device") or "meta")
            found = args[0].real_numbers.new_tensor(*args[1:], **dict(kwargs, device="cpu"))
            return OnCard(found) if device.type == "meta" else found
        return function(*args, **kwargs)


class MixedDevices(RuntimeError):
    "An operation of tensors of which one is on the card and one is not."


class Card(TorchDispatchMode):
    "While it is entered, the device `meta` is a card."

    current = None

    def __init__(self):
        super().__init__()
        self.copies = []

    def __enter__(self):
        Card.current = self
        self.made = Made()
        self.made.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.made.__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return self.run(function, args, kwargs or {})

    def put(self, module):
        "A module's parameters and buffers on the card."
        for part in module.modules():
            for name, p in part._parameters.items():
                if p is not None and not isinstance(p.data, OnCard):
                    moved = torch.nn.Parameter(OnCard(p.detach()), requires_grad=p.requires_grad)
                    part._parameters[name] = moved
            for name, b in part._buffers.items():
                if b is not None and not isinstance(b, OnCard):
                    part._buffers[name] = OnCard(b)
        return module

    def run(self, function, args, kwargs):
        "One operation of torch, on the real numbers."
        flat, _ = tree_flatten((args, kwargs))
        tensors = [x for x in flat if isinstance(x, torch.Tensor)]
        here = [x for x in tensors if isinstance(x, OnCard)]
        there = [x for x in tensors if not isinstance(x, OnCard)]
        device = kwargs.get("device")
        wanted = None if device is None else torch.device(device)
        to_card = bool(here) if wanted is None else wanted.type == "meta"
        moves = function in (aten._to_copy.default, aten.copy_.default)
        strangers = [x for x in there if x.dim()]
        if function in INDEXING and isinstance(args[0], OnCard):
            values = args[2:3]
            strangers = [x for x in values if not isinstance(x, OnCard) and x.dim()]
        if here and strangers and not moves:
            shapes = [tuple(x.shape) for x in strangers]
            raise MixedDevices(f"{function}: {shapes} are on the CPU, the rest is on the card")
        if here and not to_card:
            self.copies.append((str(function), tuple(here[0].shape)))
        if wanted is not None and wanted.type == "meta":
            kwargs = dict(kwargs, device=torch.device("cpu"))
        real = lambda x: x.real_numbers if isinstance(x, OnCard) else x
        found = function(*tree_map(real, args), **tree_map(real, kwargs))
        if isinstance(args[0] if args else None, OnCard) and found is args[0].real_numbers:
            return args[0]
        if not to_card:
            return found
        return tree_map(lambda x: OnCard(x) if isinstance(x, torch.Tensor) else x, found)
