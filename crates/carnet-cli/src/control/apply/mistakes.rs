//! What the daemon says of a policy, as `carnet check` says it.

use std::collections::BTreeMap;
use std::fs;

use carnet_control::{Elsewhere, Level, Mistake, Problem, ProblemKind};
use carnet_policy::file::{self, Finding, Id, Mistakes, Place};

/// What was sent.
#[derive(Debug)]
pub struct Sent {
    /// What people call it.
    pub name: String,
    /// Its lines are those of the file.
    pub text: String,
}

/// Each, and an empty line behind it.
pub fn written(mistakes: &[Mistake], sent: Option<&Sent>) -> String {
    let mut texts = Texts { sent, files: BTreeMap::new() };
    mistakes.iter().map(|mistake| format!("{}\n\n", one(mistake, &mut texts))).collect()
}

/// What it comes to.
pub fn conclusion(name: &str, mistakes: usize) -> String {
    let mistakes = if mistakes == 1 { "1 mistake".to_owned() } else { format!("{mistakes} mistakes") };
    format!("carnet: {name} cannot be used; {mistakes}. What was in force stays in force\n")
}

/// Mistakes that were found here, in the form in which the daemon would have told them.
pub fn problem(mistakes: &Mistakes) -> Problem {
    let detail = "the policy has mistakes, and was not sent";
    Problem::new(ProblemKind::Mistakes, detail).with_mistakes(mistakes.findings().iter().map(mistake).collect())
}

fn mistake(finding: &Finding) -> Mistake {
    let Finding { id, place, what, action, also } = finding;
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let span = |place: &Place| Some((place.span.start as u64, place.span.end as u64));
    let elsewhere = |(place, what): &(Place, String)| Elsewhere {
        file: Some(place.file.clone()),
        line: number(place.line),
        column: number(place.column),
        span: span(place),
        message: what.clone(),
    };
    Mistake {
        id: Some(id.name().into()),
        level: Some(match id.level() {
            file::Level::Note => Level::Note,
            file::Level::Warning => Level::Warning,
            file::Level::Mistake => Level::Mistake,
        }),
        file: Some(place.file.clone()),
        line: number(place.line),
        column: number(place.column),
        span: span(place),
        message: what.clone(),
        suggestion: Some(action.clone()).filter(|action| !action.is_empty()),
        also: also.iter().map(elsewhere).collect(),
    }
}

/// As the finding that it was, where the line is to be had.
fn one(mistake: &Mistake, texts: &mut Texts<'_>) -> String {
    finding(mistake, texts).map_or_else(|| bare(mistake, texts), |finding| finding.to_string())
}

fn finding(mistake: &Mistake, texts: &mut Texts<'_>) -> Option<Finding> {
    let id = Id::ALL.iter().copied().find(|id| mistake.id.as_deref() == Some(id.name()))?;
    let also = mistake.also.iter().map(|also| {
        let place = texts.place(also.file.as_deref(), also.line, also.span)?;
        Some((place, also.message.clone()))
    });
    Some(Finding {
        also: also.collect::<Option<_>>()?,
        id,
        place: texts.place(mistake.file.as_deref(), mistake.line, mistake.span)?,
        what: mistake.message.clone(),
        action: mistake.suggestion.clone().unwrap_or_default(),
    })
}

/// Without the line.
fn bare(mistake: &Mistake, texts: &Texts<'_>) -> String {
    let level = match mistake.level {
        Some(Level::Note) => "note",
        Some(Level::Warning) => "warning",
        Some(Level::Mistake) | None => "mistake",
    };
    let id = mistake.id.as_ref().map_or_else(String::new, |id| format!("[{id}]"));
    let at = |file: Option<&str>, line, column| {
        let name = file.or(texts.sent.map(|sent| &*sent.name));
        let parts = [name.map(str::to_owned), number(line), number(if line == 0 { 0 } else { column })];
        parts.into_iter().flatten().map(|part| format!("{part}:")).collect::<String>()
    };
    let spaced = |at: String| if at.is_empty() { at } else { at + " " };
    let mut text = spaced(at(mistake.file.as_deref(), mistake.line, mistake.column));
    text += &format!("{level}{id}: {}", mistake.message);
    for also in &mistake.also {
        text += &format!("\n  {}{}", spaced(at(also.file.as_deref(), also.line, also.column)), also.message);
    }
    if let Some(suggestion) = &mistake.suggestion {
        text += &format!("\n  do: {suggestion}");
    }
    crate::control::terminal::printable_lines(&text)
}

/// `None` for 0, which is none.
fn number(number: u32) -> Option<String> {
    (number != 0).then(|| number.to_string())
}

/// What places are in.
struct Texts<'s> {
    sent: Option<&'s Sent>,
    /// Of this host, as far as they can be read: the daemon's own policy file, and those of sets.
    files: BTreeMap<String, Option<String>>,
}

impl Texts<'_> {
    fn place(&mut self, file: Option<&str>, line: u32, span: Option<(u64, u64)>) -> Option<Place> {
        let (name, text) = match (file, self.sent) {
            (None, Some(sent)) => (&*sent.name, &*sent.text),
            (None, None) => return None,
            (Some(file), _) => {
                let read = || fs::metadata(file).ok().filter(fs::Metadata::is_file).and(fs::read_to_string(file).ok());
                (file, self.files.entry(file.into()).or_insert_with(read).as_deref()?)
            }
        };
        let span = span.map(|(first, behind)| (usize::try_from(first), usize::try_from(behind)));
        let Some((Ok(first), Ok(behind))) = span else { return None };
        // Where the file is another one meanwhile, its lines say nothing.
        let place = Place::of(name, text, first..behind);
        (place.line == line as usize).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use carnet_policy::file::{Nowhere, PolicyFile};

    use super::*;
    use crate::policy_file::Folder;

    const POLICY: &str = "[[provider]]\nname = \"a\"\nrnak = 1\nlisten = \"127.0.0.1:1\"\nowner = { uid = 7 }\n\n\
                          [[provider]]\nname = \"a\"\nrank = 1\nlisten = \"127.0.0.1:2\"\nowner = { uid = 8 }\n";

    fn sent() -> Sent {
        Sent { name: "p.toml".into(), text: POLICY.into() }
    }

    fn mistakes() -> Mistakes {
        PolicyFile::read("p.toml", POLICY, &Folder::current(), &Nowhere).unwrap_err()
    }

    #[test]
    fn what_the_daemon_tells_looks_as_check_has_it() {
        let mistakes = mistakes();
        assert!(mistakes.findings().iter().any(|finding| !finding.also.is_empty()), "{mistakes}");
        let mut told: Vec<Mistake> = mistakes.findings().iter().map(mistake).collect();
        for mistake in &mut told {
            // What was sent has no name.
            mistake.file = None;
            mistake.also.iter_mut().for_each(|also| also.file = None);
        }
        let expected: String = mistakes.findings().iter().map(|finding| format!("{finding}\n\n")).collect();
        assert_eq!(written(&told, Some(&sent())), expected);
    }

    #[test]
    fn what_another_version_tells_has_no_line_and_all_the_rest() {
        let told = Mistake {
            id: Some("later".into()),
            line: 3,
            column: 1,
            message: "x\u{1b}".into(),
            suggestion: Some("y".into()),
            also: vec![Elsewhere { line: 2, message: "z".into(), ..Elsewhere::default() }],
            ..Mistake::default()
        };
        let expected = "p.toml:3:1: mistake[later]: x\\u{1b}\n  p.toml:2: z\n  do: y\n\n";
        assert_eq!(written(&[told], Some(&sent())), expected);
        let bare = Mistake { message: "x".into(), ..Mistake::default() };
        assert_eq!(written(&[bare], None), "mistake: x\n\n");
    }

    #[test]
    fn a_file_that_is_another_one_meanwhile_is_not_shown() {
        let told = Mistake {
            id: Some("unknown-key".into()),
            line: 3,
            column: 1,
            span: Some((0, 4)),
            message: "x".into(),
            ..Mistake::default()
        };
        assert_eq!(written(&[told], Some(&sent())), "p.toml:3:1: mistake[unknown-key]: x\n\n");
    }
}
