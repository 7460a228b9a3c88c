//! What is written to: with colours where it is a terminal, and as wide.

use std::fmt::Write;
use std::io::{self, IsTerminal};

use anstyle::{AnsiColor, Style};
use rustix::termios::tcgetwinsize;

pub use crate::run::output::printable;
use crate::run::wants_colour;

/// Standard output, as text goes there.
#[derive(Clone, Copy, Debug)]
pub struct Terminal {
    pub colour: bool,
    /// In characters.
    pub width: usize,
}

impl Terminal {
    /// As it is now.
    pub fn of_output() -> Self {
        let columns = tcgetwinsize(io::stdout()).map_or(0, |size| size.ws_col);
        Self { colour: wants_colour(io::stdout().is_terminal()), width: if columns == 0 { 80 } else { columns.into() } }
    }

    /// A text in a style, where there are styles.
    pub fn styled(self, text: &str, style: Style) -> String {
        if self.colour { format!("{}{text}{}", style.render(), style.render_reset()) } else { text.to_owned() }
    }

    /// A label, and behind it what it is about. What is longer than the line goes on below its beginning; a word such as
    /// a path stays whole.
    pub fn row(self, label: &str, text: &str) -> String {
        let room = self.width.saturating_sub(LABEL).max(NARROWEST);
        let mut row = self.styled(&format!("{label:LABEL$}"), DIM);
        let mut used = 0;
        for word in printable(text).split(' ') {
            let length = word.chars().count();
            if used > 0 && used + 1 + length > room {
                let _ = write!(row, "\n{:LABEL$}", "");
                used = 0;
            } else if used > 0 {
                row.push(' ');
                used += 1;
            }
            row.push_str(word);
            used += length;
        }
        row + "\n"
    }
}

/// Of several lines: what others have chosen must not steer the terminal.
pub fn printable_lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

pub const DIM: Style = Style::new().dimmed();
pub const BOLD: Style = Style::new().bold();
pub const GOOD: Style = AnsiColor::Green.on_default();
pub const BAD: Style = AnsiColor::Red.on_default();
pub const UNSURE: Style = AnsiColor::Yellow.on_default();

/// Characters of a label.
const LABEL: usize = 11;

/// A terminal may say that it has one column.
const NARROWEST: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Terminal = Terminal { colour: false, width: 30 };

    #[test]
    fn a_row_goes_on_below_its_beginning() {
        assert_eq!(PLAIN.row("policy", "7, from a file"), "policy     7, from a file\n");
        let long = PLAIN.row("policy", "7, from /etc/carnet/a/very/long/path.toml, since then");
        assert_eq!(long, "policy     7, from\n           /etc/carnet/a/very/long/path.toml,\n           since then\n");
        assert!(
            Terminal { width: 0, ..PLAIN }.row("a", "b c").starts_with("a          b c"),
            "a terminal without width"
        );
    }

    #[test]
    fn colour_is_around_the_label_alone() {
        let row = Terminal { colour: true, ..PLAIN }.row("policy", "7");
        assert_eq!(row, "\u{1b}[2mpolicy     \u{1b}[0m7\n");
    }

    #[test]
    fn names_that_others_chose_do_not_steer_the_terminal() {
        assert_eq!(PLAIN.row("x", "a\u{1b}[2Jb"), "x          a\\u{1b}[2Jb\n");
    }
}
