"""Reports of an audit for people (HTML, PDF; English and French) and for programs (CSV, JSON), all from one result."""

from ledger.audit.report.text import iso, moment
from ledger.audit.report.words import LANGUAGES
from ledger.audit.report.write import FORMATS, SEEING_WITHHELD, write_report

__all__ = ["FORMATS", "LANGUAGES", "SEEING_WITHHELD", "iso", "moment", "write_report"]
