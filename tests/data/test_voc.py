from pathlib import Path

import pytest
from PIL import Image

from lookaround.data.annotations import Categories
from lookaround.data.findings import Kind
from lookaround.data.voc import MOST_BYTES, parse_xml, read_voc
from lookaround.errors import DataError

OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult>
<bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox>
<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>"""


def an_object(*corners: object, name: str = "dog", difficult: object = 0) -> str:
    return OBJECT.format(*corners, name=name, difficult=difficult)


def write_voc(
    root: Path, stem: str, *objects: str, size: str = "<width>40</width><height>30</height>"
) -> Path:
    for folder in ("Annotations", "JPEGImages"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30)).save(root / "JPEGImages" / f"{stem}.jpg")
    file = root / "Annotations" / f"{stem}.xml"
    file.write_text(
        f"<annotation><filename>{stem}.jpg</filename><size>{size}</size>{''.join(objects)}</annotation>"
    )
    return file


def read(root: Path, *files: Path, **options: object):
    return read_voc(files, root / "JPEGImages", **options)


def found(annotations) -> dict[Kind, int]:
    return {finding.kind: finding.count for finding in annotations.summary.findings}


def test_corners_count_from_one_and_include_the_last_pixel(tmp_path):
    file = write_voc(tmp_path, "a", an_object(1, 1, 40, 30), an_object(11, 6, 20.5, 10, name="cat"))
    read_ = read(tmp_path, file)
    (one,) = read_.images
    assert one.boxes.tolist() == [[0, 0, 40, 30], [10, 5, 20.5, 10]]
    assert one.areas.tolist() == [1200, 52.5]
    assert read_.categories == Categories(("cat", "dog"), (1, 2))
    assert one.labels.tolist() == [1, 0]
    assert found(read_) == {}


def test_difficult_objects_are_crowds(tmp_path):
    file = write_voc(tmp_path, "a", an_object(1, 1, 9, 9, difficult=1), an_object(1, 1, 9, 9, difficult="x"))
    assert read(tmp_path, file).images[0].crowd.tolist() == [True, False]


def test_images_without_objects_and_sizes_are_fine(tmp_path):
    files = [write_voc(tmp_path, "a", an_object(1, 1, 9, 9)), write_voc(tmp_path, "b", size="")]
    read_ = read(tmp_path, *files)
    assert [(one.image_id, one.width, len(one.labels)) for one in read_.images] == [(1, 40, 1), (2, 40, 0)]


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (an_object(9, 5, 5, 9), Kind.NO_AREA),
        (an_object("nan", 1, 5, 9), Kind.NOT_FINITE),
        (an_object("inf", 1, 5, 9), Kind.NOT_FINITE),
        (an_object("", 1, 5, 9), Kind.NOT_FINITE),
        ("<object><name>dog</name></object>", Kind.NOT_FINITE),
        (an_object(50, 1, 60, 9), Kind.OUTSIDE_IMAGE),
        (an_object(1, 1, 5, 9, name=" "), Kind.UNKNOWN_CATEGORY),
        ("<object/>", Kind.UNKNOWN_CATEGORY),
    ],
)
def test_bad_boxes_are_dropped_and_counted(tmp_path, bad, kind):
    read_ = read(tmp_path, write_voc(tmp_path, "a", bad, an_object(1, 1, 9, 9)))
    assert read_.images[0].boxes.tolist() == [[0, 0, 9, 9]]
    assert found(read_) == {kind: 1}
    assert f"1 {kind.what}: dropped" in str(read_.summary)


def test_boxes_over_the_border_are_clipped(tmp_path):
    read_ = read(tmp_path, write_voc(tmp_path, "a", an_object(0, 1, 60, 9)))
    assert read_.images[0].boxes.tolist() == [[0, 0, 40, 9]]
    assert found(read_) == {Kind.CLIPPED: 1}


def test_classes_of_another_part_are_dropped(tmp_path):
    file = write_voc(tmp_path, "a", an_object(1, 1, 9, 9), an_object(1, 1, 9, 9, name="cat"))
    read_ = read(tmp_path, file, categories=Categories(("dog", "pig"), (1, 2)))
    assert read_.images[0].labels.tolist() == [0]
    assert found(read_) == {Kind.UNKNOWN_CATEGORY: 1}


def test_images_that_are_missing_broken_or_of_another_size(tmp_path):
    files = [write_voc(tmp_path, stem, an_object(1, 1, 9, 9)) for stem in "abcd"]
    (tmp_path / "JPEGImages" / "a.jpg").unlink()
    (tmp_path / "JPEGImages" / "b.jpg").write_text("no image")
    Image.new("RGB", (30, 40)).save(tmp_path / "JPEGImages" / "c.jpg")
    read_ = read(tmp_path, *files)
    assert [one.image_id for one in read_.images] == [4]
    assert found(read_) == {
        Kind.MISSING_FILE: 1,
        Kind.UNREADABLE_FILE: 1,
        Kind.OTHER_SIZE: 1,
        Kind.IMAGE_DROPPED: 3,
    }


def test_a_file_name_cannot_lead_elsewhere(tmp_path):
    file = write_voc(tmp_path, "a", an_object(1, 1, 9, 9))
    (tmp_path / "JPEGImages" / "a.jpg").rename(tmp_path / "b.jpg")
    file.write_text(file.read_text().replace("a.jpg", "../b.jpg"))
    with pytest.raises(DataError, match=r"1 images without a file: dropped \(.*JPEGImages/b\.jpg\)"):
        read(tmp_path, file)


BROKEN = {
    "no xml": b"dog",
    "cut short": b"<annotation><object>",
    "empty": b"",
    "another root": b"<svg/>",
    "unknown encoding": b"<?xml version='1.0' encoding='klingon'?><annotation/>",
    "laughs": b"<!DOCTYPE a [<!ENTITY a 'ha'><!ENTITY b '&a;&a;'>]><annotation>&b;</annotation>",
    "reads a file": b"<!DOCTYPE a [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><annotation>&a;</annotation>",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_descriptions_are_dropped_and_counted(tmp_path, name):
    good, bad = write_voc(tmp_path, "a", an_object(1, 1, 9, 9)), write_voc(tmp_path, "b")
    bad.write_bytes(BROKEN[name])
    read_ = read(tmp_path, good, bad, tmp_path / "Annotations" / "nowhere.xml")
    assert len(read_) == 1
    assert found(read_) == {Kind.BAD_DESCRIPTION: 2}
    assert "(b.xml: " in str(read_.summary)


def test_declarations_are_refused_in_every_encoding():
    text = "<?xml version='1.0' encoding='utf-16'?><!DOCTYPE a [<!ENTITY a 'ha'>]><a>&a;</a>"
    for content in (BROKEN["laughs"], text.encode("utf-16")):
        with pytest.raises(DataError, match="must be without a document type declaration; got <!DOCTYPE a>"):
            parse_xml(content)


def test_broken_xml_says_why():
    with pytest.raises(DataError, match=r"must be well-formed xml; got no element found: line 1, column 3"):
        parse_xml(b"<a>")
    assert parse_xml("<a><b>ü &amp; ß</b></a>".encode()).findtext("b") == "ü & ß"


def test_huge_files_are_not_read(tmp_path):
    good, bad = write_voc(tmp_path, "a", an_object(1, 1, 9, 9)), write_voc(tmp_path, "b")
    with bad.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    assert "b.xml: read_voc: a description must have at most" in str(read(tmp_path, good, bad).summary)


def test_a_set_without_objects_is_refused(tmp_path):
    with pytest.raises(DataError, match="at least one object with a class; got none in 1 descriptions"):
        read(tmp_path, write_voc(tmp_path, "a"))
