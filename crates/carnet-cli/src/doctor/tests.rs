use super::finding::{Area, Finding, Id, Level};
use super::*;

#[test]
fn every_id_is_in_the_document_and_no_other() {
    let document = include_str!("../../../../docs/doctor.md");
    // Rows of the areas' tables: | `id` | ...
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let mut area = "";
    let mut documented = Vec::new();
    for line in document.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            area = heading;
        } else if let Some((id, _)) =
            line.strip_prefix("| `").and_then(|row| row.split_once('`')).filter(|_| !area.is_empty())
        {
            documented.push((area.to_owned(), id.to_owned()));
        }
    }
    assert!(rows.count() > documented.len(), "the fields' tables come before the areas'");
    let ours: Vec<_> = Id::ALL.iter().map(|(id, name)| (id.area().name().to_owned(), (*name).to_owned())).collect();
    assert_eq!(documented, ours);
}

#[test]
fn ids_are_words_with_dashes_and_there_once() {
    for (place, (id, name)) in Id::ALL.iter().enumerate() {
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'), "{name}");
        assert!(Id::ALL[..place].iter().all(|(_, other)| other != name), "{name}");
        assert_eq!(serde_json::to_value(id).unwrap(), *name);
        assert!(Area::ALL.contains(&id.area()));
    }
}

#[test]
fn a_problem_is_an_answer_and_a_refusal_is_none() {
    let ok = || Finding::ok(Id::Backlog, "well");
    let warning = || Finding::warning(Id::Tproxy, "hm", "look");
    let problem = || Finding::problem(Id::SocketMemory, "no", "more");

    let mut report = Report::new();
    report.add(ok());
    report.add(warning());
    assert_eq!(report.exit_code(), 0);
    report.refused(warning());
    assert_eq!(report.exit_code(), 3);
    report.add(problem());
    assert_eq!(report.exit_code(), 1);
}

#[test]
fn text_is_grouped_and_says_what_to_do() {
    let mut report = Report::new();
    report.add(Finding::note(Id::Backlog, "few", "more"));
    report.add(Finding::ok(Id::MptcpOn, "on"));
    report.add(Finding::warning(Id::OpenFiles, "a\nname\u{1b}[1m", "raise it"));
    let expected = "kernel\n  ok       on\nlimits\n  note     few\n           do: more\n  warning  a\\nname\\u{1b}[1m\n           \
                    do: raise it\ncarnet doctor: nothing stands in the way; 1 warning, 1 note\n";
    assert_eq!(report.text(80), expected);
}

#[test]
fn nothing_to_do_is_not_said() {
    let mut report = Report::new();
    report.add(Finding::note(Id::RunActive, "there", "Nothing"));
    report.add(Finding::note(Id::Backlog, "few", "Nothing, unless more come"));
    let text = report.text(80);
    assert!(text.contains("  note     there\nlimits\n") && text.contains("do: Nothing, unless more come\n"), "{text}");
}

#[test]
fn text_goes_on_below_its_beginning_and_paths_stay_whole() {
    let mut report = Report::new();
    let path = "/sys/fs/cgroup/system.slice/some.service";
    report.add(Finding::warning(
        Id::OpenFiles,
        format!("one two three four five {path}"),
        "raise the limit of this one",
    ));
    let expected = format!(
        "limits\n  warning  one two three four five\n           {path}\n           do: raise the limit of this\n               \
         one\ncarnet doctor: nothing stands in the\nway; 1 warning\n"
    );
    assert_eq!(report.text(38), expected);
    assert!(report.text(0).contains("\n  warning  one two three four\n"), "a terminal without width");
}

#[test]
fn a_mistake_is_told_with_the_subcommands_usage() {
    let mistake = usage().error(ErrorKind::ValueValidation, "no such cgroup").to_string();
    assert!(mistake.contains("Usage: carnet doctor [OPTIONS]"), "{mistake}");
}

#[test]
fn json_has_these_fields() {
    let mut report = Report::new();
    report.add(Finding::warning(Id::OpenFiles, "few", "raise it").with("hard", 7));
    let value: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!(value["version"], env!("CARGO_PKG_VERSION"));
    assert!(!value["kernel"].as_str().unwrap().is_empty());
    assert_eq!(value["worst"], Level::Warning.name());
    let expected = serde_json::json!({"id": "open-files", "level": "warning", "area": "limits", "what": "few", "do": "raise it",
        "details": {"hard": 7}});
    assert_eq!(value["findings"], serde_json::json!([expected]));
}
