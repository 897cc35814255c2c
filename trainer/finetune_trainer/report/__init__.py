"""From plain facts about a finished run to what people read: report.html, plots, the model card and run.json."""
