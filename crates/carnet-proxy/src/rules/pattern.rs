//! Names and patterns of names as people write them, and the form in which they are compared.

use std::borrow::Cow;

use super::{read::Wrong, source::shown};

/// What a rule says of names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Pattern {
    /// In lower case. Empty for `*`, which is any name.
    pub(super) suffix: Box<str>,
    /// Whether names below it are meant, at any depth, and not itself.
    pub(super) is_below: bool,
}

impl Pattern {
    /// `example.org` or `*.example.org`.
    pub(super) fn parse(text: &str) -> Result<Self, Wrong> {
        let (suffix, is_below) = match text.strip_prefix("*.") {
            Some(suffix) => (suffix, true),
            None if text == "*" => return Ok(Self { suffix: "".into(), is_below: true }),
            None => (text, false),
        };
        let suffix = suffix.strip_suffix('.').unwrap_or(suffix);
        check(text, suffix)?;
        Ok(Self { suffix: suffix.to_ascii_lowercase().into(), is_below })
    }
}

/// The form in which names are compared: lower case, without the dot at the end that a full name may have.
pub(super) fn normal(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => name.to_ascii_lowercase().into(),
        false => name.into(),
    }
}

fn check(text: &str, name: &str) -> Result<(), Wrong> {
    let wrong = |what: &str, action: String| Err((format!("{:?} {what}", shown(text)), action));
    let example = "write \"example.org\", or \"*.example.org\" for all names below it";
    if name.is_empty() {
        return wrong("is no name", example.to_owned());
    }
    if !name.is_ascii() {
        let action = "write its ASCII form, whose labels begin with xn--: `idn2 NAME` prints it";
        return wrong("is not in the form that names have in protocols", action.to_owned());
    }
    if let Some(below) = name.strip_prefix('.') {
        return wrong("begins with a dot", format!("write \"{below}\", and \"*.{below}\" too"));
    }
    if name.contains('*') {
        return wrong("has a * that is not its first label", example.to_owned());
    }
    if name.contains("://") || name.contains('/') {
        return wrong("is more than a name", "write the name alone, without scheme and path".to_owned());
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    if name.starts_with('[') || name.matches(':').count() > 1 || last.bytes().all(|byte| byte.is_ascii_digit()) {
        return wrong("is an address, not a name", "put addresses in \"to\"".to_owned());
    }
    if let Some((before, port)) = name.split_once(':')
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return wrong("has a port", format!("write {before:?}, and ports in \"ports\""));
    }
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if let Some(label) = name.split('.').find(|label| label.is_empty() || !label.bytes().all(is_letter)) {
        return wrong(&format!("is no name: a label of it is {label:?}"), example.to_owned());
    }
    if name.split('.').any(|label| label.len() > 63) || name.len() > LONGEST {
        return wrong(&format!("is too long: {LONGEST} characters, 63 for each label"), String::new());
    }
    Ok(())
}

/// Characters of a name.
const LONGEST: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_they_are_written() {
        for (text, suffix, is_below) in [
            ("example.org", "example.org", false),
            ("Example.ORG.", "example.org", false),
            ("*.example.org", "example.org", true),
            ("*", "", true),
            ("localhost", "localhost", false),
            ("_srv.xn--mnchen-3ya.example", "_srv.xn--mnchen-3ya.example", false),
            ("1.2.example", "1.2.example", false),
        ] {
            assert_eq!(Pattern::parse(text), Ok(Pattern { suffix: suffix.into(), is_below }), "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_told_with_what_would_be_one() {
        let long = format!("{}.org", "a".repeat(64));
        for (text, what, action) in [
            ("", "is no name", "write \"example.org\""),
            ("*.", "is no name", "for all names below"),
            (".", "is no name", ""),
            ("münchen.example", "not in the form", "xn--"),
            (".example.org", "begins with a dot", "write \"example.org\", and \"*.example.org\" too"),
            ("a*.example.org", "has a *", ""),
            ("*.*.example.org", "has a *", ""),
            ("https://example.org", "more than a name", "without scheme"),
            ("192.0.2.7", "is an address", "\"to\""),
            ("*.2.7", "is an address", "\"to\""),
            ("[::1]", "is an address", "\"to\""),
            ("2001:db8::1", "is an address", "\"to\""),
            ("example.org:443", "has a port", "write \"example.org\", and ports"),
            ("a..b", "a label of it is \"\"", ""),
            ("a b", "a label of it is \"a b\"", ""),
            (&long, "too long", ""),
        ] {
            let (is, advice) = Pattern::parse(text).unwrap_err();
            assert!(is.contains(what) && advice.contains(action), "{text}: {is} / {advice}");
        }
    }
}
