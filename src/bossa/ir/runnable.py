"""What a program must be to be run as it is: what the passes leave, and what native code is made for."""

from __future__ import annotations

from bossa.errors import ProgramError, shown
from bossa.ir.program import Op, Program, expressions, outputs, row_ops
from bossa.ir.values import views
from bossa.ir.verify import verify


def check_runnable(program: Program) -> None:
    """Verify a program, and that its logits are those of selected rows, made by its last op.

    The caller has memory for the logits of these rows alone, and nothing reads there.

    Raises:
        ProgramError: it is malformed, or does not end so.
    """
    verify(program)
    why = _trouble(program)
    if why is not None:
        raise ProgramError(f"{shown(program.name)[:80]}: {why}")


def _trouble(program: Program) -> str | None:
    if not any(op.selects for op in row_ops(program)):
        return "the rows whose logits are wanted are never selected"
    if [value.name for value in outputs(program.body[-1])] != [program.output]:
        return f"its last op does not make its output %{program.output}"
    ops = row_ops(program)
    columns = {name for op in ops for name in op.column_tables()}
    both = [name for op in ops for name in _operands(op) if name in columns]
    return f"table {both[0]} is a bias of attention and read otherwise too" if both else None


def _operands(op: Op) -> list[str]:
    return [view.name for expr in expressions(op) for view in views(expr) if view.space == "table"]
