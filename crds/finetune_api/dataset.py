"""Where the examples are and what their columns mean."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from finetune_api.base import InputUri, Model, Rule, all_different, says

DEFAULT_VALIDATION_FRACTION = 0.1
"""The part of the training examples that validates where neither `validationFraction` nor `splits.validation` is given."""

MeasuredSplit = Literal["validation", "test", "retention"]
"""Rows that the model is measured on before and after training, in the order in which they are told of."""

Pattern = Annotated[str, Field(min_length=1, max_length=512)]
ColumnName = Annotated[str, Field(min_length=1, max_length=128)]
Label = Annotated[str, Field(min_length=1, max_length=128)]


Encoding = Literal[
    "utf-8", "utf-8-sig", "utf-16", "ascii",
    "latin-1", "iso-8859-1", "iso-8859-2", "iso-8859-5", "iso-8859-7", "iso-8859-9", "iso-8859-15",
    "cp1252", "windows-1250", "windows-1251", "windows-1252", "windows-1253", "windows-1254", "windows-1256", "windows-1257",
    "cp437", "cp850", "cp866", "koi8-r", "mac-roman",
    "shift_jis", "cp932", "euc-jp", "euc-kr", "cp949", "gbk", "gb18030", "big5",
]  # fmt: skip
"""Those of text that files are found in; a cluster can look up no other."""

_NO_LINE_END = says("one character, no line end")


class Csv(Model):
    """How CSV and TSV files are written, where it differs from RFC 4180."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            'delimiter (left out: a comma) and quoteChar (left out: ") must be different characters; change one',
            "(has(self.delimiter) ? self.delimiter : ',') != (has(self.quoteChar) ? self.quoteChar : '\"')",
            lambda c: (c.delimiter or ",") != ('"' if c.quote_char is None else c.quote_char),
        ),
    )

    delimiter: (
        Annotated[str, Field(pattern=r"^[^\r\n]$", min_length=1, max_length=1, json_schema_extra=_NO_LINE_END)] | None
    ) = None
    """The character between two values. A first line such as `sep=;`, as Excel writes it, says it too and is no row. Default: a
    comma, for `format: tsv` a tab."""

    quote_char: (
        Annotated[
            str,
            Field(pattern=r"^[^\r\n]?$", max_length=1, json_schema_extra=says("one character, no line end, or empty")),
        ]
        | None
    ) = None
    """The character around values that hold a delimiter. Default: `"` for csv, none for tsv; an empty string means that
    quotes are ordinary characters."""

    encoding: Encoding = "utf-8"
    """The character encoding of the files, such as `utf-8` or `latin-1`. Default: utf-8."""

    column_names: Annotated[list[ColumnName], Field(min_length=1, max_length=256)] | None = None
    """The names of the columns, in order, for files without a header line. Default: the first line is the header."""


class Splits(Model):
    """Which rows are for what: names of hub splits, or file patterns below `uri`."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "train, validation, test and retention must be different rows, or the metrics would mean nothing; name different splits, or "
            "leave validation out for a part of train",
            "(!has(self.validation) || self.validation != (has(self.train) ? self.train : 'train')) && "
            "(!has(self.test) || (self.test != (has(self.train) ? self.train : 'train') && "
            "(!has(self.validation) || self.test != self.validation))) && "
            "(!has(self.retention) || (self.retention != (has(self.train) ? self.train : 'train') && "
            "(!has(self.validation) || self.retention != self.validation) && (!has(self.test) || self.retention != self.test)))",
            lambda s: len(said := [s.train, *filter(None, (s.validation, s.test, s.retention))]) == len(set(said)),
        ),
    )

    train: Pattern = "train"
    """The examples to train on: a hub split such as `train`; of files a name such as `train.csv`, a pattern such as
    `train/*.parquet`, or how names begin: `train` is also `train-1.csv`, and everything in the folder `train`. Default: `train`."""

    validation: Pattern | None = None
    """The examples to evaluate on after each epoch and to choose the best model by. Default: `validationFraction` of the
    training examples."""

    test: Pattern | None = None
    """The examples that only the finished model is measured on. Default: none, and no test metrics."""

    retention: Pattern | None = None
    """Examples of what the model could do before and should not forget, in the same form as the others: it is measured on them before and
    after training, and they are neither trained on nor chosen by. Default: none."""


class Columns(Model):
    """Which column of the data plays which role: a field for each role of any task, of which a job names those of its own."""

    text: ColumnName | None = None
    """The column with the text, or with the first text of a pair. Default: the one called `text`."""

    text_pair: ColumnName | None = None
    """The column with the second text of a pair. Default: the one called `textPair` where the task is about pairs, none elsewhere: each
    example is one text."""

    label: ColumnName | None = None
    """The column with the label: a name, or a whole number; a fraction only where `labels` lists it. With
    `textGeneration.objective: kto` whether the answer is liked: true or false. Default: the one called `label`."""

    labels: ColumnName | None = None
    """The column with any number of labels: a list of them, or one text with a separator between them. Default: the one called
    `labels`, where the task has examples with a label and the data has no column called `label`."""

    score: ColumnName | None = None
    """The column with the number to learn. Default: the one called `score`."""

    image: ColumnName | None = None
    """The column with the image: the content of its file, or a path relative to the file that names it. Default: the one called `image`;
    in a file called `metadata.csv`, `.jsonl` or `.parquet` the one called `file_name`. Images in folders have no columns: each is
    labelled as its folder is called."""

    tokens: ColumnName | None = None
    """The column with the words of a text, one by one; of a CoNLL file its number, such as `1`; of CoNLL-U `2`. Default: the one called
    `tokens`, of a CoNLL file the first."""

    tags: ColumnName | None = None
    """The column with a tag for each of the words; of a CoNLL file its number; of CoNLL-U `4` for parts of speech. Default: the one called
    `tags`, of a CoNLL file the last."""

    negative: ColumnName | None = None
    """The column with a text that does not belong to the one in `text`, though it may look so. Default: the one called `negative`, if
    the data has it."""

    question: ColumnName | None = None
    """The column with the question. Default: the one called `question`."""

    context: ColumnName | None = None
    """The column with the text in which the answer stands. Default: the one called `context`."""

    answers: ColumnName | None = None
    """The column with the right answers: passages of the context, each with its place, and none where the context has no answer. The
    first one is learnt, any of them is right. Default: the one called `answers`."""

    audio: ColumnName | None = None
    """The column with the sound: the content of its file, or a path relative to the file that names it. Default: the one called `audio`;
    in a file called `metadata.csv`, `.jsonl` or `.parquet` the one called `file_name`. Sounds in folders have no columns: each is
    labelled as its folder is called."""

    target: ColumnName | None = None
    """The column with the text that is to be written for the one in `text`. Rows with the same text give it several that are right: each is
    learnt, and what the model writes is compared with all. Default: the one called `target`."""

    messages: ColumnName | None = None
    """The column with a conversation: its messages in order, each with `role` and `content` or, as ShareGPT has them, with `from` and
    `value`. Default: the one called `messages`, else `conversations`."""

    tools: ColumnName | None = None
    """The column with the functions that the model may call in a conversation. Default: the one called `tools`, else `functions`, if the
    data has it."""

    system: ColumnName | None = None
    """The column with what stands before a conversation, which has no message of that role itself. Default: the one called `system`, if the
    data has it."""

    instruction: ColumnName | None = None
    """The column with what the model is told to do. Default: the one called `instruction`."""

    input: ColumnName | None = None
    """The column with what it is to do that with; it follows the instruction on a line of its own. Default: the one called `input`, if the
    data has it and `instruction` has the column of its own name."""

    output: ColumnName | None = None
    """The column with the answer. Default: the one called `output`."""

    history: ColumnName | None = None
    """The column with earlier turns: a list of pairs, an instruction and its answer each, which is learnt, too, but not before `chosen`, nor
    where answers are liked or not; or messages. Default: the one called `history`, if the data has it."""

    prompt: ColumnName | None = None
    """The column with what is completed, or answered by `chosen` and `rejected`. A text stands as it is, without the chat template, and so
    without a system message or tools; messages are rendered by it. Default: the one called `prompt`; beside `chosen` else `conversations`,
    `input`, `messages` or `question`, in any of which a text is what the user says; and where the data has none of these, what both begin with.
    Such a text, and `messages`, are not read where both answers hold what is asked: conversations with what a user says, or texts that begin with
    it."""

    completion: ColumnName | None = None
    """The column with what completes the prompt: a text where that is one, else messages. Default: the one called `completion`."""

    chosen: ColumnName | None = None
    """The column with the answer that is liked more: a text, the message or messages that answer, or all of the conversation. Default: the
    one called `chosen`, else `preferred_output`."""

    rejected: ColumnName | None = None
    """The column with the answer that is liked less, as in `chosen`. Default: the one called `rejected`, else `non_preferred_output`."""


class Dataset(Model):
    """The data to train and measure on."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "subset is for hub datasets (hf://) only; name the files in splits instead",
            "!has(self.subset) || self.uri.startsWith('hf://')",
            lambda d: d.subset is None or d.uri.startswith("hf://"),
        ),
        Rule(
            "format and csv are for files only; a hub dataset knows its own format, so remove them",
            "!self.uri.startsWith('hf://') || (!has(self.format) && !has(self.csv))",
            lambda d: not d.uri.startswith("hf://") or (d.format is None and d.csv is None),
        ),
        Rule(
            "csv is for format csv or tsv only; remove it, or correct format",
            "!has(self.csv) || !has(self.format) || self.format in ['csv', 'tsv']",
            lambda d: d.csv is None or d.format in (None, "csv", "tsv"),
        ),
        Rule(
            "give either splits.validation or validationFraction, not both",
            "!has(self.validationFraction) || !has(self.splits) || !has(self.splits.validation)",
            lambda d: d.validation_fraction is None or d.splits.validation is None,
        ),
    )

    uri: InputUri
    """Where the data is: `hf://owner/name` for a hub dataset; `s3://`, `gs://`, `az://` or `file:///` for a folder of files
    or one file. In local runs a path relative to the manifest is allowed too."""

    subset: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """The configuration of a hub dataset, such as `mrpc` of `hf://nyu-mll/glue`. Default: the dataset's own default."""

    format: Literal["csv", "tsv", "jsonl", "parquet", "conll", "squad"] | None = None
    """How the files are written: `jsonl` has an object in each line, or all of them in one list; `conll` has a word and its tags in each
    line, `squad` is the nested JSON of SQuAD. Default: told by their extension (`.csv`, `.tsv`, `.jsonl`, `.ndjson` or `.json`, `.parquet`;
    `.conll` or `.conllu` where examples have words; `.json` is `squad` where they have answers)."""

    csv: Csv | None = None
    """Details of CSV and TSV files. Default: RFC 4180 with a header line; TSV without quoting."""

    splits: Splits = Splits()
    """Which rows are for training, validation and test. Default: `train`, and a part of it for validation."""

    validation_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The part of the training examples set aside for validation when there is no `splits.validation`, drawn by `seed`, each
    label in its proportion where examples have one. Rows with equal inputs stay together. Default: 0.1."""

    columns: Columns = Columns()
    """Which column plays which role. Default: each role's column is called like the role, such as `text` and `label`."""

    labels: (
        Annotated[
            list[Label],
            Field(min_length=2, max_length=1000, json_schema_extra={"uniqueItems": True}),
            AfterValidator(all_different),
        ]
        | None
    ) = None
    """The label names; the order gives their numbers, and of two the last is the positive class. Default: read from the
    training examples (names sorted), or from the hub dataset's own feature. Where the data holds whole numbers they are
    positions in this list."""
