//! What has an end that is missing: lists, tables, texts, headers. A parser of TOML takes what follows for more of the
//! same, and says so of every line; here the place where it begins is told, once.

use std::ops::Range;

/// Something without an end.
#[derive(Debug, Eq, PartialEq)]
pub struct Open {
    /// Where it begins.
    pub span: Range<usize>,
    pub what: String,
    pub action: String,
    /// Whole lines that nobody can read because of it.
    pub lost: Range<usize>,
}

/// All of a text, in the order of their places. For a text that is no TOML: one that is may have lines in its lists
/// that look like the beginning of something else.
pub fn open(text: &str) -> Vec<Open> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let line = line_at(text, at);
        let found = match line.trim_start().as_bytes().first() {
            None | Some(b'#') => None,
            Some(b'[') => header(text, at),
            Some(_) => {
                let (end, found) = statement(text, at);
                at = end;
                all.extend(found);
                continue;
            }
        };
        at = found.as_ref().map_or(at + line.len() + 1, |open| open.lost.end);
        all.extend(found);
    }
    all
}

/// A header that is none; what is below it is lost with it, since nobody knows what it belongs to.
fn header(text: &str, at: usize) -> Option<Open> {
    let line = line_at(text, at);
    let content = uncommented(line).trim();
    if header_key(content).is_some() {
        return None;
    }
    // What is no header at all is the parser's to tell.
    let key = meant_key(content)?;
    let is_one_of_many = matches!(key, "filter" | "provider" | "provider.filter");
    let header = if is_one_of_many { format!("[[{key}]]") } else { format!("[{key}]") };
    let start = at + line.len() - line.trim_start().len();
    let mut end = next_line(text, at);
    while end < text.len() {
        let is_below = |other: &str| other.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
        let line = uncommented(line_at(text, end)).trim();
        if line.starts_with('[') && meant_key(line).is_some_and(|other| !is_below(other)) {
            break;
        }
        end = next_line(text, end);
    }
    Some(Open {
        span: start..start + content.len(),
        what: "this header is not closed".to_owned(),
        action: format!("write {header}"),
        lost: at..end,
    })
}

/// One key and its value. Returns where the next line after it begins.
fn statement(text: &str, start: usize) -> (usize, Option<Open>) {
    let bytes = text.as_bytes();
    let mut brackets: Vec<(usize, u8)> = Vec::new();
    let mut fault: Option<(Range<usize>, String, String)> = None;
    let mut at = start;
    let end = loop {
        match bytes.get(at) {
            None => break at,
            Some(b'#') => at = line_end(text, at),
            Some(&quote @ (b'"' | b'\'')) => {
                let length = if bytes[at..].starts_with(&[quote; 3]) { 3 } else { 1 };
                match text_end(text, at, quote, length) {
                    Ok(end) => at = end,
                    Err(end) => {
                        let quotes = char::from(quote).to_string().repeat(length);
                        fault.get_or_insert((
                            at..at + length,
                            "this text is not closed".to_owned(),
                            format!("close it with {quotes}"),
                        ));
                        at = end;
                    }
                }
            }
            Some(&open @ (b'[' | b'{')) => {
                brackets.push((at, open));
                at += 1;
            }
            Some(&close @ (b']' | b'}')) => {
                match brackets.pop() {
                    Some((_, open)) if closing(open) == close => {}
                    Some(open) => {
                        fault.get_or_insert_with(|| unclosed(open));
                        while brackets.pop().is_some_and(|(_, open)| closing(open) != close) {}
                    }
                    None => {
                        let close = char::from(close);
                        fault.get_or_insert_with(|| {
                            (at..at + 1, format!("this {close} closes nothing"), "remove it".to_owned())
                        });
                    }
                }
                at += 1;
            }
            Some(b'\n') => {
                at += 1;
                let Some(&innermost) = brackets.last() else { break at };
                if begins(line_at(text, at), innermost.1) {
                    fault.get_or_insert_with(|| unclosed(innermost));
                    break at;
                }
            }
            Some(_) => at += 1,
        }
    };
    if at >= text.len()
        && let Some(&innermost) = brackets.last()
    {
        fault.get_or_insert_with(|| unclosed(innermost));
    }
    let open = fault.map(|(span, what, action)| Open { span, what, action, lost: start..end });
    (end, open)
}

/// Behind the end of a text that begins at `start` with so many quotes; else where what follows it begins.
fn text_end(text: &str, start: usize, quote: u8, length: usize) -> Result<usize, usize> {
    let bytes = text.as_bytes();
    let mut at = start + length;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            // What it escapes may be a quote; the end of a line it escapes only where there are several.
            b'\\' if quote == b'"' && (length == 3 || bytes.get(at + 1) != Some(&b'\n')) => at += 2,
            b'\n' if length == 1 => return Err(at),
            _ if bytes[at..].starts_with(&[quote; 3][..length]) => {
                // A text of several lines can have up to two quotes before the three at its end.
                let more =
                    bytes[at + length..].iter().take_while(|byte| length == 3 && **byte == quote).take(2).count();
                return Ok(at + length + more);
            }
            _ => at += 1,
        }
    }
    let mut line = line_end(text, start);
    while length == 3 && line < text.len() {
        if begins(line_at(text, line + 1), b'[') {
            return Err(line);
        }
        line = line_end(text, line + 1);
    }
    Err(text.len())
}

/// Whether a line looks like the beginning of something else than more of what is in such a bracket.
fn begins(line: &str, bracket: u8) -> bool {
    // Tables can have keys in lines of their own.
    header_key(uncommented(line).trim()).is_some() || bracket == b'[' && has_key(line)
}

/// Whether a line begins with a key and what is between it and its value.
fn has_key(line: &str) -> bool {
    line.split_once('=').is_some_and(|(key, _)| is_key(key.trim()))
}

/// The key of a whole header, with one bracket or two.
fn header_key(content: &str) -> Option<&str> {
    let inside = content.strip_prefix('[')?.strip_suffix(']')?;
    let key = match inside.strip_prefix('[') {
        Some(inside) => inside.strip_suffix(']')?,
        None => inside,
    };
    let key = key.trim();
    is_key(key).then_some(key)
}

/// The key of a header, whole or not.
fn meant_key(content: &str) -> Option<&str> {
    let key = content.trim_matches(['[', ']']).trim();
    is_key(key).then_some(key)
}

/// A key as headers and lines have them: not what a list could have.
fn is_key(key: &str) -> bool {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '"' | '\'' | ' ');
    key.starts_with(|c: char| c.is_ascii_alphabetic()) && key.chars().all(is_bare)
}

fn unclosed((at, bracket): (usize, u8)) -> (Range<usize>, String, String) {
    let what = if bracket == b'[' { "this list is not closed" } else { "this table is not closed" };
    (at..at + 1, what.to_owned(), format!("add {:?}", char::from(closing(bracket)).to_string()))
}

fn closing(bracket: u8) -> u8 {
    if bracket == b'[' { b']' } else { b'}' }
}

/// Without a comment behind it, where there are no quotes.
fn uncommented(line: &str) -> &str {
    line.split_once('#').filter(|(before, _)| !before.contains(['"', '\''])).map_or(line, |(before, _)| before)
}

/// From here to the end of the line.
fn line_at(text: &str, at: usize) -> &str {
    text.get(at..line_end(text, at)).unwrap_or_default()
}

fn line_end(text: &str, at: usize) -> usize {
    let rest = text.as_bytes().get(at..).unwrap_or_default();
    rest.iter().position(|byte| *byte == b'\n').map_or(text.len(), |length| at + length)
}

fn next_line(text: &str, at: usize) -> usize {
    (line_end(text, at) + 1).min(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where each begins, and the text that is lost.
    fn all(text: &str) -> Vec<(&str, &str)> {
        open(text).into_iter().map(|open| (&text[open.span], &text[open.lost])).collect()
    }

    #[test]
    fn what_is_closed_is_left_alone() {
        let text = "a = [1, [2], { b = \"]\" }] # [\n\n[c]\nd = '''\n[e\n'''\nf = \"\\\"]\"\n[[g.\"h i\"]] # ]\nj = {\n k = 1,\n}\n\
            l = \"\"\"a\"\"\"\"\"\n[ m ]\n";
        assert_eq!(all(text), []);
    }

    #[test]
    fn what_is_not_closed_is_told_where_it_begins_and_the_rest_is_read() {
        for (text, expected) in [
            ("a = [1, 2\nb = 3\n", &[("[", "a = [1, 2\n")][..]),
            ("a = [\n 1,\n 2\n\n[[b]]\nc = [\n", &[("[", "a = [\n 1,\n 2\n\n"), ("[", "c = [\n")]),
            ("a = { b = [1 }\nc = 1\n", &[("[", "a = { b = [1 }\n")]),
            ("a = { b = 1,\nc = 1\n[d]\n", &[("{", "a = { b = 1,\nc = 1\n")]),
            ("a = 1]\nb = 1}\n", &[("]", "a = 1]\n"), ("}", "b = 1}\n")]),
            ("a = \"x\nb = 'y\n", &[("\"", "a = \"x\n"), ("'", "b = 'y\n")]),
            ("a = [\"x, 'y']\nb = 1\n", &[("\"", "a = [\"x, 'y']\n")]),
            ("a = \"\"\"x\ny\nb = 1\n", &[("\"\"\"", "a = \"\"\"x\ny\n")]),
            ("a = \"\"\"x", &[("\"\"\"", "a = \"\"\"x")]),
            ("[[filter]\na = 1\n[b]\n", &[("[[filter]", "[[filter]\na = 1\n")]),
            ("[[provider]\n[control\n[b]\n", &[("[[provider]", "[[provider]\n"), ("[control", "[control\n")]),
            (
                "[[provider] # x\na = 1\n[[provider.filter]]\n[[b]]\n",
                &[("[[provider]", "[[provider] # x\na = 1\n[[provider.filter]]\n")],
            ),
        ] {
            assert_eq!(all(text), expected, "{text}");
        }
    }
}
