//! A text, and where in it something is.

use std::ops::Range;
use std::sync::Arc;

/// Where something is in a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// The file, by the name it was read with.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The bytes of the file.
    pub span: Range<usize>,
    /// The line, or what is around the place where it is long. What moves a cursor is a blank here.
    pub text: String,
    /// The characters of [`Place::text`] that are meant; at least one, which may be just behind its end.
    pub marked: Range<usize>,
}

impl Place {
    /// Of these bytes of a text that findings call `file`; the nearest there are, where there are none.
    pub fn of(file: &str, text: &str, span: Range<usize>) -> Self {
        Source::new(file, text).place(span)
    }
}

/// The text of one file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Source {
    name: String,
    text: String,
    /// Where each line begins.
    lines: Vec<usize>,
}

/// The texts of a policy: the file, and what has been added to it. One span is a place in one of them: they are
/// counted as one text, with a byte between two.
#[derive(Clone, Debug)]
pub(super) struct Texts {
    /// With where each begins.
    parts: Vec<(usize, Arc<Source>)>,
}

impl Texts {
    pub fn of(source: Source) -> Self {
        Self { parts: vec![(0, Arc::new(source))] }
    }

    /// These, and one more behind them. Also where that begins.
    pub fn and(&self, source: Source) -> (Self, usize) {
        let start = self.parts.last().map_or(0, |(start, source)| start + source.text().len() + 1);
        let more = (start, Arc::new(source));
        (Self { parts: self.parts.iter().cloned().chain([more]).collect() }, start)
    }

    /// What the file is called.
    pub fn name(&self) -> &str {
        self.parts.first().map_or("", |(_, source)| source.name())
    }

    /// Of any range, as [`Source::place`].
    pub fn place(&self, span: Range<usize>) -> Place {
        let at = self.parts.partition_point(|(start, _)| *start <= span.start).saturating_sub(1);
        let (start, source) = &self.parts[at];
        source.place(span.start - start..span.end.saturating_sub(*start))
    }
}

impl Source {
    pub fn new(name: &str, text: &str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { name: name.to_owned(), text: text.to_owned(), lines: [0].into_iter().chain(starts).collect() }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The bytes of a line, which counts from 1, without its end; of none, no bytes.
    pub fn line(&self, line: usize) -> Range<usize> {
        let end = self.text.len();
        let first = line.checked_sub(1).and_then(|line| self.lines.get(line)).copied().unwrap_or(end);
        first..self.lines.get(line).map_or(end, |next| next - 1).max(first)
    }

    /// Of any range: one that is not in the text becomes the nearest that is.
    pub fn place(&self, span: Range<usize>) -> Place {
        let start = boundary(&self.text, span.start);
        let end = boundary(&self.text, span.end).max(start);
        let line = self.lines.partition_point(|&first| first <= start).max(1);
        let Range { start: first, end: last } = self.line(line);
        let content = self.text[first..last].strip_suffix('\r').unwrap_or(&self.text[first..last]);
        let column = self.text[first..start].chars().count();
        let length = self.text[start..end.min(last).max(start)].chars().count();
        let (text, marked) = window(content, column, length);
        Place { file: self.name.clone(), line, column: column + 1, span: start..end, text, marked }
    }
}

/// Shows the control characters of a name from anywhere as what they are, and its end where it is long.
pub(super) fn shown(name: &str) -> String {
    // Messages have names in quotes, which are escaped there.
    let escaped = |c: char| if matches!(c, '"' | '\'' | '\\') { c.to_string() } else { c.escape_debug().to_string() };
    let mut shown: String = name.chars().take(LONGEST_NAME).map(escaped).collect();
    if name.chars().nth(LONGEST_NAME).is_some() {
        shown.push_str("...");
    }
    shown
}

/// The start of the character that `at` is in.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// What is around the marked characters of a line.
fn window(line: &str, column: usize, length: usize) -> (String, Range<usize>) {
    let count = line.chars().count();
    let column = column.min(count);
    let skipped = if count <= WIDEST { 0 } else { column.saturating_sub(BEFORE) };
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    let mut text: String = line.chars().skip(skipped).take(WIDEST).map(visible).collect();
    let mut start = column - skipped;
    let end = (start + length).min(text.chars().count()).max(start + 1);
    let length = end - start;
    if skipped > 0 {
        text.insert_str(0, CUT);
        start += CUT.len();
    }
    if skipped + WIDEST < count {
        text.push_str(CUT);
    }
    (text.trim_end().to_owned(), start..start + length)
}

/// Characters of a line that are shown.
const WIDEST: usize = 100;

/// Characters before the marked ones, in a longer line.
const BEFORE: usize = 30;

const CUT: &str = "...";

const LONGEST_NAME: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one_in_characters() {
        let source = Source::new("f", "äb = 1\r\n\tc = 2\n");
        let place = source.place(3..4);
        assert_eq!((place.line, place.column, &place.text[..], place.marked), (1, 3, "äb = 1", 2..3));
        let place = source.place(10..11);
        assert_eq!((place.line, place.column, &place.text[..], place.marked), (2, 2, " c = 2", 1..2));
        let place = source.place(16..99);
        assert_eq!((place.line, place.column, &place.text[..], place.marked), (3, 1, "", 0..1));
    }

    #[test]
    fn a_long_line_is_shown_around_the_place() {
        let line = format!("{}x{}", "a".repeat(200), "b".repeat(200));
        let place = Source::new("f", &line).place(200..201);
        assert_eq!(place.column, 201);
        assert_eq!(place.text, format!("...{}x{}...", "a".repeat(30), "b".repeat(69)));
        assert_eq!(place.text.chars().nth(place.marked.start), Some('x'));
    }

    #[test]
    fn a_span_of_several_lines_is_marked_on_its_first() {
        let place = Source::new("f", "a = [\n1,\n2]").place(4..11);
        assert_eq!((place.line, place.marked, place.span), (1, 4..5, 4..11));
    }

    #[test]
    fn a_place_is_in_the_text_that_it_is_of() {
        let (texts, second) = Texts::of(Source::new("first", "a\nb")).and(Source::new("second", "c\nd"));
        let (texts, third) = texts.and(Source::new("third", ""));
        assert_eq!((second, third, texts.name()), (4, 8, "first"));
        for (at, file, line, column) in
            [(0, "first", 1, 1), (3, "first", 2, 2), (4, "second", 1, 1), (6, "second", 2, 1), (8, "third", 1, 1)]
        {
            let place = texts.place(at..at + 1);
            assert_eq!((&place.file[..], place.line, place.column), (file, line, column), "{at}");
        }
        assert_eq!(texts.place(99..99).file, "third");
    }

    #[test]
    fn any_range_has_a_place() {
        let text = "ä\nö\r\n";
        for start in 0..9 {
            for end in 0..9 {
                let place = Source::new("f", text).place(start..end);
                assert!(text.get(place.span.clone()).is_some(), "{start}..{end}: {place:?}");
                assert!(place.marked.start < place.marked.end && place.marked.start <= place.text.chars().count());
            }
        }
    }
}
