//! A text, and where in it something is.

use std::ops::Range;

/// Where something is in a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// The file, by the path it was read with.
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

/// The text of one file.
#[derive(Debug)]
pub(super) struct Source<'t> {
    pub(super) name: &'t str,
    pub(super) text: &'t str,
    /// Where each line begins.
    lines: Vec<usize>,
}

impl<'t> Source<'t> {
    pub(super) fn new(name: &'t str, text: &'t str) -> Self {
        let behind_ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { name, text, lines: [0].into_iter().chain(behind_ends).collect() }
    }

    /// The line, from 1, in which a byte is.
    pub(super) fn line_of(&self, at: usize) -> usize {
        self.lines.partition_point(|&first| first <= at)
    }

    /// The bytes of a line without its end; of one that is not there, none.
    pub(super) fn line(&self, line: usize) -> Range<usize> {
        let end = self.text.len();
        let first = line.checked_sub(1).and_then(|line| self.lines.get(line)).copied().unwrap_or(end);
        first..self.lines.get(line).map_or(end, |next| next - 1)
    }

    /// Of any range: one that is not in the text becomes the nearest that is.
    pub(super) fn place(&self, span: Range<usize>) -> Place {
        let start = self.text.floor_char_boundary(span.start);
        let end = self.text.floor_char_boundary(span.end).max(start);
        let line = self.line_of(start);
        let whole = self.line(line);
        let content = &self.text[whole.clone()];
        let column = self.text[whole.start..start].chars().count();
        let length = self.text[start..end.min(whole.end).max(start)].chars().count();
        let (text, marked) = excerpt(content.trim_end(), column, length);
        Place { file: self.name.to_owned(), line, column: column + 1, span: start..end, text, marked }
    }
}

/// A name from a file, for a message: control characters as what they are, and cut where it is long.
pub(super) fn shown(name: &str) -> String {
    let visible = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    let mut shown: String = name.chars().take(WIDEST_NAME).map(visible).collect();
    if name.chars().nth(WIDEST_NAME).is_some() {
        shown.push_str(CUT);
    }
    shown
}

/// What of a line is shown, and which of its characters are meant.
fn excerpt(line: &str, column: usize, length: usize) -> (String, Range<usize>) {
    let count = line.chars().count();
    let column = column.min(count);
    let skipped = if count <= WIDEST { 0 } else { column.saturating_sub(BEFORE) };
    let begin = if skipped > 0 { CUT } else { "" };
    let shown = line.chars().skip(skipped).take(WIDEST).map(|c| if c.is_control() { ' ' } else { c });
    let mut text: String = begin.chars().chain(shown).collect();
    let start = begin.len() + column - skipped;
    let end = (start + length).min(text.chars().count()).max(start + 1);
    if skipped + WIDEST < count {
        text.push_str(CUT);
    }
    (text, start..end)
}

/// Characters of a line that are shown.
const WIDEST: usize = 100;

/// Characters before the marked ones, in a longer line.
const BEFORE: usize = 30;

const WIDEST_NAME: usize = 80;

const CUT: &str = "...";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one_in_characters() {
        let source = Source::new("f", "äb = 1\r\n\tc = 2\n");
        let place = source.place(3..4);
        assert_eq!((place.line, place.column, &*place.text, place.marked), (1, 3, "äb = 1", 2..3));
        let place = source.place(10..11);
        assert_eq!((place.line, place.column, &*place.text, place.marked), (2, 2, " c = 2", 1..2));
        let place = source.place(16..99);
        assert_eq!((place.line, place.column, &*place.text, place.marked), (3, 1, "", 0..1));
    }

    #[test]
    fn a_long_line_is_shown_around_the_place() {
        let line = format!("{}x{}", "a".repeat(200), "b".repeat(200));
        let place = Source::new("f", &line).place(200..201);
        assert_eq!((place.column, place.text.chars().nth(place.marked.start)), (201, Some('x')));
        assert_eq!(place.text, format!("...{}x{}...", "a".repeat(30), "b".repeat(69)));
    }

    #[test]
    fn any_range_has_a_place() {
        let text = "ä\nö\r\n";
        for (start, end) in (0..9).flat_map(|start| (0..9).map(move |end| (start, end))) {
            let place = Source::new("f", text).place(start..end);
            assert!(text.get(place.span.clone()).is_some(), "{start}..{end}: {place:?}");
            assert!(place.marked.start < place.marked.end && place.marked.start <= place.text.chars().count());
        }
    }
}
