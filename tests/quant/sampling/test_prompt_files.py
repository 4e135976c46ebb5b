"""Prompt files of others, whole and broken."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from contract.places import ROOT
from quant.errors import PromptSetError
from quant.sampling.prompt_files import read_rows
from quant.sampling.prompts import load_prompt_set, load_prompts, seen_prompts


def _write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def _coco(path: Path, annotations: list[dict[str, object]], images: tuple[int, ...] = ()) -> str:
    return _write(path, json.dumps({"images": [{"id": each} for each in images], "annotations": annotations}))


def test_coco_takes_the_first_caption_of_every_image_and_counts_what_is_missing(tmp_path: Path) -> None:
    annotations: list[dict[str, object]] = [
        {"image_id": 7, "id": 22, "caption": "a later caption"},
        {"image_id": 7, "id": 21, "caption": "a cat on a mat"},
        {"image_id": 3, "id": 5, "caption": "a dog"},
        {"image_id": 4, "id": 6},
        {"image_id": 5, "id": 8, "caption": "  "},
        {"image_id": 6, "id": 9, "caption": "a dog"},
    ]
    found = load_prompt_set(tmp_path, _coco(tmp_path / "captions.json", annotations, images=(3, 7, 9)))
    assert [(prompt.id, prompt.text) for prompt in found.prompts] == [("coco-3", "a dog"), ("coco-7", "a cat on a mat")]
    assert found.left_out == {"no text": 3, "repeated": 1} and found.name == "captions"


@pytest.mark.parametrize("column", ["Prompt", "prompt"])
def test_stable_diffusion_prompts_as_parquet_and_as_csv(tmp_path: Path, column: str) -> None:
    texts = [
        "a castle, trending on artstation",
        'quotes "and", commas',
        "Ünïcödé 猫",
        "a castle, trending on artstation",
    ]
    parquet.write_table(pyarrow.table({column: texts}), tmp_path / "eval.parquet")
    pyarrow_set = load_prompt_set(tmp_path, str(tmp_path / "eval.parquet"))
    rows = "\n".join(f'"{text.replace(chr(34), chr(34) * 2)}"' for text in texts)
    csv_set = load_prompt_set(tmp_path, _write(tmp_path / "eval.csv", f"{column}\n{rows}\n"))
    assert [prompt.text for prompt in pyarrow_set.prompts] == texts[:3]
    assert csv_set.prompts == pyarrow_set.prompts and csv_set.left_out == {"repeated": 1}


def test_lines_of_text_and_of_json(tmp_path: Path) -> None:
    text = load_prompt_set(tmp_path, _write(tmp_path / "own.txt", "one\n\ntwo\n"), limit=1)
    assert [prompt.text for prompt in text.prompts] == ["one"] and text.left_out == {"no text": 1}
    rows = [{"id": "x", "prompt": "one", "attributes": {"floor": "dark"}}, {"prompt": "two"}, {"prompt": None}]
    lines = "\n".join(json.dumps(row) for row in rows) + '\n{"prompt": "\\ud800"}\n'
    found = load_prompt_set(tmp_path, _write(tmp_path / "own.jsonl", lines))
    assert found.prompts[0].id == "x" and found.prompts[0].attributes == {"floor": "dark"}
    assert found.prompts[1].id == text.prompts[0].id or len(found.prompts[1].id) == 16
    assert found.left_out == {"no text": 1, "not valid Unicode": 1}


def test_the_id_of_a_text_is_its_own(tmp_path: Path) -> None:
    first = load_prompt_set(tmp_path, _write(tmp_path / "a.txt", "a red box\n")).prompts[0]
    second = load_prompt_set(tmp_path, _write(tmp_path / "b.csv", "prompt\na blue box\na red box\n")).prompts[1]
    assert first.id == second.id


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", "", "no prompts"),
        ("blank.txt", " \n\t\n", "no prompts"),
        ("empty.json", "", "JSONDecodeError"),
        ("list.json", "[]", "COCO"),
        ("none.json", '{"annotations": []}', "no prompts"),
        ("odd.json", '{"annotations": [{"caption": "x"}]}', "KeyError"),
        ("truncated.jsonl", '{"prompt": "a', "JSONDecodeError"),
        ("numbers.jsonl", "1\n", "line 1"),
        ("column.csv", "text\na\n", "column"),
        ("not.parquet", "PAR1", "Arrow"),
        ("what.docx", "x", ".parquet"),
        ("ids.jsonl", '{"id": "a", "prompt": "x"}\n{"id": "a", "prompt": "y"}\n', "same id"),
    ],
)
def test_a_bad_file_is_refused_with_the_reason(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(PromptSetError, match=message):
        load_prompt_set(tmp_path, _write(tmp_path / name, content))


def test_a_name_that_is_neither_set_nor_file_lists_the_sets() -> None:
    with pytest.raises(PromptSetError, match="shapes-ornate"):
        load_prompt_set(ROOT / "prompts", "shapes-nowhere")


def test_the_splits_of_the_shipped_sets_never_meet() -> None:
    seen = seen_prompts(ROOT / "prompts")
    texts = {prompt.text for prompt in seen.values()}
    for name in ("shapes-plain", "shapes-ornate"):
        test = load_prompt_set(ROOT / "prompts", name).prompts
        assert len(test) >= 1000
        assert not {prompt.id for prompt in test} & set(seen) and not {prompt.text for prompt in test} & texts


_INSIDE = ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c"]
"""What Python takes for the end of a line, and JSON and text files do not."""


@pytest.mark.parametrize("separator", _INSIDE)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_row_ends_at_a_line_feed_and_nowhere_else(tmp_path: Path, separator: str, mark: bytes, end: str) -> None:
    prompt = f"one{separator}two"
    text = tmp_path / "mine.txt"
    text.write_bytes(mark + f"{prompt}{end}three{end}".encode())
    assert [row[1] for row in read_rows(text)] == [prompt, "three"]
    if separator in "\u2028\u2029\u0085":  # JSON allows no raw control character in a string
        rows = tmp_path / "mine.jsonl"
        rows.write_bytes(mark + f'{{"prompt": "{prompt}"}}{end}{{"prompt": "three"}}'.encode())
        assert [row[1] for row in read_rows(rows)] == [prompt, "three"]
        (tmp_path / "set").mkdir()
        split = f'{{"id": "a", "prompt": "{prompt}"}}{end}'
        (tmp_path / "set" / "test.jsonl").write_bytes(mark + split.encode())
        assert [found.text for found in load_prompts(tmp_path, "set", "test")] == [prompt]
