"""Tables of text, for notebooks, terminals, papers and pages."""

import abc
import html

import pandas as pd


class Shown(abc.ABC):
    """A heading with a table of text, shown by notebooks and terminals, and written for papers and pages."""

    @abc.abstractmethod
    def heading(self) -> str:
        """Return a line that says what the table holds."""

    @abc.abstractmethod
    def cells(self) -> pd.DataFrame:
        """Return the table, all of it text."""

    def __repr__(self) -> str:
        cells = self.cells()
        return f"{self.heading()}\n{cells.to_string(index=False)}" if len(cells) else self.heading()

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self.heading())}</p>{self.to_html()}"

    def to_html(self) -> str:
        """Return the table as HTML."""
        return str(self.cells().to_html(index=False, border=0))

    def to_latex(self) -> str:
        """Return the table as LaTeX, with the rules of the package booktabs."""
        return str(self.cells().to_latex(index=False, escape=True))

    def to_markdown(self) -> str:
        """Return the table as Markdown."""
        cells = self.cells()
        rows = [list(cells.columns), ["---"] * cells.shape[1], *cells.to_numpy().tolist()]
        return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
