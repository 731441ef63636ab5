"""Do the tests notice a wrong formula? `make mutants`, or `python tests/mutants.py --each 10 cam`.

Each mutant is one of the formula modules with one small fault: another operator, comparison,
constant or reduction. The tests of that module run against it, in a copy of a process that has
imported torch once. A mutant that no test notices has survived; survivors are written to
`tests/mutants.csv`, where a reason may be added by hand: it is kept. Fails below 95 %."""

import argparse
import ast
import copy
import csv
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import multiprocessing
import os
import resource
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent / "fmwsss" / "method"
TABLE = HERE / "mutants.csv"
WANTED = 0.95
LIMIT = 90  # seconds of one processor for a mutant; one that never ends is noticed

PARITY = "tests/test_parity.py::test_parity[{}]"
TESTS = dict(
    cam=["tests/test_cam.py", "masked_softmax", "gradcam_A_cscmix_end_n4_80x112"],
    affinity=["tests/test_affinity.py", "affinity_a"],
    losses=["tests/test_losses.py", "contrastive_loss_a", "cam_activation_loss_a"],
    sams=["tests/test_sams.py", "sams_a", "sams_edge", "seeds_single"],
    masks=["tests/test_superpixels.py", "rock_sand_water_a"],
    evaluation=["tests/test_evaluation.py", "evaluation_a"],
)

COMPARE = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
BINARY = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
NAMES = dict(
    min="max", max="min", amin="amax", amax="amin", any="all", all="any", sum="mean", mean="sum",
    argmax="argmin", exp="abs", softmax="sigmoid", maximum="minimum", minimum="maximum",
)  # fmt: skip


def wrong(node):
    "A faulty copy of a node of the syntax tree, or None."
    new = copy.deepcopy(node)
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARE:
        new.ops[0] = COMPARE[type(node.ops[0])]()
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in BINARY:
        new.op = BINARY[type(node.op)]()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub, ast.Invert)):
        new = node.operand
    elif isinstance(node, ast.BoolOp):
        new.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        new.value = not node.value
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        new.value = node.value * 2 if node.value not in (0, 0.0) else 1
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        new.attr = NAMES[node.attr]
    else:
        return None
    return new


SILENT = (ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom)


def places(tree):
    "Nodes that decide a number: (function, parent, field, index, node); no messages."

    def visit(node, function):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            function = node.name
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list"):
                continue
            many = isinstance(value, list)
            for index, child in enumerate(value if many else [value]):
                if not isinstance(child, ast.AST) or isinstance(child, SILENT):
                    continue
                if raises(child):
                    continue
                if function:
                    yield function, node, field, index if many else None, child
                yield from visit(child, function)

    yield from visit(tree, "")


def raises(node):
    "A check of arguments: an `if` that only raises."
    return isinstance(node, ast.If) and isinstance(node.body[-1], ast.Raise) and not node.orelse


def mutants_of(module, each):
    "(function, text before, text after, place) of at most `each` faults, always the same."
    source = (PACKAGE / f"{module}.py").read_text(encoding="utf-8")
    found = []
    for function, parent, field, index, node in places(ast.parse(source)):
        new = wrong(node)
        if new is None:
            continue
        old = getattr(parent, field)
        before = ast.unparse(statement(parent, node))
        setattr(parent, field, new if index is None else [*old[:index], new, *old[index + 1 :]])
        after = ast.unparse(statement(parent, new))
        setattr(parent, field, old)
        found.append((function, before, after, place_of(node)))
    found.sort(key=lambda m: hashlib.sha256(repr(m[:4]).encode()).hexdigest())
    return found[:each]


def statement(parent, node):
    "What is shown of a fault: the expression around it, or itself."
    return parent if isinstance(parent, ast.expr) else node


def place_of(node):
    return node.lineno, node.col_offset, node.end_lineno, node.end_col_offset, type(node).__name__


def faulty_tree(module, place):
    "The module's syntax tree with the fault at a place."
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    for _, parent, field, index, node in places(tree):
        if hasattr(node, "lineno") and place_of(node) == place:
            new, old = wrong(node), getattr(parent, field)
            setattr(parent, field, new if index is None else [*old[:index], new, *old[index + 1 :]])
            return ast.fix_missing_locations(tree)
    raise AssertionError(f"no node at {place}")


class Faulty(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    "Loads one module of fmwsss.method from a syntax tree."

    def __init__(self, module, place):
        self.name, self.path = f"fmwsss.method.{module}", str(PACKAGE / f"{module}.py")
        self.tree = faulty_tree(module, place)

    def find_spec(self, name, path=None, target=None):
        if name == self.name:
            return importlib.util.spec_from_file_location(name, self.path, loader=self)
        return None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(compile(self.tree, self.path, "exec"), module.__dict__)

    def get_source(self, name):
        return Path(self.path).read_text(encoding="utf-8")


def tests_of(module):
    own = [t if t.endswith(".py") else PARITY.format(t) for t in TESTS[module]]
    return ["tests/test_formulas.py", *own]


def run_tests(job):
    "In a copy of the parent: 0 if all tests of the module pass, with a fault or (None) without."
    module, place = job
    child = os.fork()
    if not child:
        code = 1
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
            if place:
                sys.meta_path.insert(0, Faulty(module, place))
            import pytest

            options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly"]
            code = int(pytest.main([*options, *tests_of(module)]))
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def prepare():
    "Import once what takes long; nothing of fmwsss."
    import cv2
    import hypothesis
    import open_clip
    import pandas
    import scipy
    import segment_anything
    import torch
    from pycocotools import mask

    assert all((cv2, open_clip, pandas, scipy, segment_anything, mask))
    torch.set_num_threads(1)
    hypothesis.settings.register_profile("mutants", derandomize=True, database=None)
    hypothesis.settings.load_profile("mutants")
    assert not any(name.startswith("fmwsss") for name in sys.modules)


def known_reasons():
    "Reasons written by hand: {(module, function, before, after): reason}."
    if not TABLE.exists():
        return {}
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {tuple(r[k] for k in ("module", "function", "before", "after")): r["why"] for r in rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", help=f"of {', '.join(TESTS)}; default: all")
    parser.add_argument("--each", type=int, help="faults a module, at most (default: all)")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    modules = options.modules or list(TESTS)
    os.chdir(HERE.parent)
    sys.path.insert(0, str(HERE.parent))
    prepare()
    begin = time.perf_counter()
    for module in modules:
        assert run_tests((module, None)) == 0, f"{module}: its tests fail without any fault"
    faults = [(m, f) for m in modules for f in mutants_of(m, options.each)]
    jobs = [(module, fault[3]) for module, fault in faults]
    with multiprocessing.get_context("fork").Pool(options.workers) as pool:
        codes = []
        for (module, fault), code in zip(faults, pool.imap(run_tests, jobs)):
            codes.append(code)
            told = "killed  " if code else "SURVIVED"
            print(f"{told} {module}.{fault[0]}: {fault[1]}  ->  {fault[2]}", flush=True)
    survivors = [(m, *f[:3]) for (m, f), code in zip(faults, codes) if not code]
    reasons = known_reasons()
    if set(modules) == set(TESTS):
        with TABLE.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["module", "function", "before", "after", "why"])
            table.writerows([*s, reasons.get(s, "")] for s in survivors)
    for module in modules:
        mine = [bool(c) for (m, _), c in zip(faults, codes) if m == module]
        print(f"{module}: {sum(mine)} of {len(mine)} killed")
    killed = sum(map(bool, codes)) / len(codes)
    seconds = time.perf_counter() - begin
    print(f"mutants: {len(codes)}, killed: {killed:.1%}, seconds: {seconds:.0f}")
    sys.exit(0 if killed >= WANTED else 1)


if __name__ == "__main__":
    main()
