"""From plain facts about a finished run to what people read: report.html, plots, the model card and run.json."""

from finetune_trainer.report.facts import Predictions, ReportFacts
from finetune_trainer.report.write import write_report

__all__ = ["Predictions", "ReportFacts", "write_report"]
