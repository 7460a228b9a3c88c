//! `carnet providers`: a table of them.

use std::process::ExitCode;

use anyhow::Result;
use carnet_control::{Id, OnDead, Owner, Provider, Providers};
use clap::Args;

use crate::control::asking::Asking;
use crate::control::status::{state, style};
use crate::control::terminal::{BOLD, DIM, Terminal, printable};
use crate::control::{Question, json, print};

/// List the providers in the order of their ranks, and how each does
///
/// STATE is alive; dead where nobody listens; stranger where another process has taken the port; stopped where it accepts
/// nothing; held where the daemon has its listeners while it restarts. ON DEAD says what becomes of connections while it
/// is not alive: closed, they are refused; open, the next provider has them. SESSION is the one that has registered it.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    question: Question,
}

/// Asks and writes.
pub fn providers(arguments: Arguments) -> Result<ExitCode> {
    let asking = Asking::of(&arguments.question.daemon)?;
    let providers = match asking.ask(async |client| client.providers().await) {
        Ok(providers) => providers,
        Err(unanswered) => return unanswered.tell(),
    };
    let text =
        if arguments.question.json { json(&Providers { providers }) } else { table(&providers, Terminal::of_output()) };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// What is longest comes last, each on a line of its own: where it listens, and whose that is.
fn table(providers: &[Provider], terminal: Terminal) -> String {
    if providers.is_empty() {
        return "there are no providers\n".into();
    }
    let has_sessions = providers.iter().any(|provider| provider.session.is_some());
    let mut columns = vec!["RANK", "NAME", "STATE", "FLOWS", "ON DEAD"];
    if has_sessions {
        columns.push("SESSION");
    }
    let rows: Vec<Vec<String>> = providers.iter().map(|provider| cells(provider, has_sessions)).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([columns[column].len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let numbers = |column: usize| matches!(columns[column], "RANK" | "FLOWS");
    let padded = |text: &str, column: usize| {
        let width = widths[column];
        if numbers(column) { format!("{text:>width$}  ") } else { format!("{text:width$}  ") }
    };

    let mut head: String = columns.iter().enumerate().map(|(column, name)| padded(name, column)).collect();
    head.push_str("WHERE AND WHOSE");
    let mut text = terminal.styled(&head, DIM) + "\n";
    let indent: usize = widths.iter().map(|width| width + 2).sum();
    for (provider, row) in providers.iter().zip(&rows) {
        for (column, cell) in row.iter().enumerate() {
            let cell = padded(cell, column);
            text += &match columns[column] {
                "NAME" => terminal.styled(&cell, BOLD),
                "STATE" => terminal.styled(&cell, style(provider.state)),
                _ => cell,
            };
        }
        let listeners = provider.listen.iter().map(|address| address.to_string());
        let details: Vec<String> = listeners.chain(provider.owner.iter().map(owner)).collect();
        text += &details.join(&format!("\n{:indent$}", ""));
        text = text.trim_end_matches(' ').to_owned() + "\n";
    }
    text
}

fn cells(provider: &Provider, has_sessions: bool) -> Vec<String> {
    let on_dead = match provider.on_dead {
        OnDead::Closed => "closed",
        OnDead::Open => "open",
    };
    let mut cells = vec![
        provider.rank.to_string(),
        printable(&provider.name),
        state(provider.state).0.to_owned(),
        provider.flows.to_string(),
        on_dead.to_owned(),
    ];
    if has_sessions {
        cells.push(provider.session.map_or_else(|| "-".to_owned(), |session| session.to_string()));
    }
    cells
}

fn owner(owner: &Owner) -> String {
    match owner {
        Owner::Cgroup(path) => printable(path),
        Owner::Uid(Id::Number(uid)) => format!("uid {uid}"),
        Owner::Uid(Id::Name(name)) => format!("user {}", printable(name)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn providers() -> Vec<Provider> {
        let provider = json!({"name": "dlp", "rank": 10, "handle": 1, "listen": ["127.0.0.1:15001", "[::1]:15001"],
            "records": "aware", "on-dead": "closed", "direct": false, "owner": [{"cgroup": "/system.slice/dlp.service"}],
            "filters": 3, "state": "alive", "session": null, "flows": 1234});
        let mut other = provider.clone();
        other["name"] = "malware scanner".into();
        (other["rank"], other["flows"]) = (200.into(), 0.into());
        (other["state"], other["on-dead"]) = ("stopped".into(), "open".into());
        (other["listen"], other["owner"]) = (json!(["127.0.0.1:3128"]), json!([{"uid": "proxy"}, {"uid": 7}]));
        vec![serde_json::from_value(provider).unwrap(), serde_json::from_value(other).unwrap()]
    }

    #[test]
    fn a_table_of_80_columns() {
        let expected = "\
RANK  NAME             STATE    FLOWS  ON DEAD  WHERE AND WHOSE
  10  dlp              alive     1234  closed   127.0.0.1:15001
                                                [::1]:15001
                                                /system.slice/dlp.service
 200  malware scanner  stopped      0  open     127.0.0.1:3128
                                                user proxy
                                                uid 7
";
        assert_eq!(table(&providers(), Terminal { colour: false, width: 80 }), expected);
    }

    #[test]
    fn sessions_have_a_column_where_there_are_any() {
        let mut providers = providers();
        providers[1].session = Some(carnet_control::SessionId(7));
        let text = table(&providers, Terminal { colour: false, width: 80 });
        assert!(text.starts_with("RANK  NAME             STATE    FLOWS  ON DEAD  SESSION  WHERE"), "{text}");
        assert!(
            text.contains("closed   -        127.0.0.1:15001\n") && text.contains("open     7        127.0"),
            "{text}"
        );
    }

    #[test]
    fn none_is_said_and_names_do_not_steer_the_terminal() {
        let terminal = Terminal { colour: true, width: 80 };
        assert_eq!(table(&[], terminal), "there are no providers\n");
        let mut providers = providers();
        providers[0].name = "a\u{1b}[2J".into();
        let text = table(&providers, terminal);
        assert!(text.contains("a\\u{1b}[2J") && text.contains("\u{1b}[33mstopped  \u{1b}[0m"), "{text:?}");
    }
}
