//! An account for people.

use crate::explain::account::{Account, FilterAccount, HopAccount};

impl Account {
    /// Each hop with its filters in columns, and at the end what it comes to.
    /// Of many filters, those that do not match are counted unless `all` are to be shown.
    pub fn text(&self, all: bool) -> String {
        let mut text: String =
            self.hops.iter().zip(1..).map(|(hop, number)| self.hop(number, hop, all) + "\n").collect();
        text.extend(self.assumed.iter().map(|assumed| format!("taken for granted: {assumed}\n")));
        text += &format!("carnet explain: {}\n", self.conclusion());
        text
    }

    fn hop(&self, number: usize, hop: &HopAccount, all: bool) -> String {
        let who = hop.by.as_ref().map_or_else(|| "the application".to_owned(), |provider| format!("{provider:?}"));
        let mut text = format!("hop {number}: {who} connects to {}\n", self.to);
        let is_shown = |filter: &&FilterAccount| all || hop.filters.len() <= FEW || filter.is_in_play();
        let shown: Vec<_> = hop.filters.iter().filter(is_shown).collect();
        text += &table(&shown);
        match hop.filters.len() - shown.len() {
            0 => {}
            1 => text += "  + one more that does not match or is not asked (--all shows it)\n",
            more => text += &format!("  + {more} more that do not match or are not asked (--all shows them)\n"),
        }
        text += &format!("  -> {}\n", hop.outcome);
        if let Some(assumed) = &hop.assumed {
            text += &format!("     taken for granted: {assumed}\n");
        }
        text
    }

    fn conclusion(&self) -> String {
        let services: Vec<_> = self.services.iter().map(|name| format!("{name:?}")).collect();
        let end = match self.end {
            "destination" => "it gets to its destination",
            "proxy" => "it gets to a proxy",
            _ => "it is refused",
        };
        match &services[..] {
            [] => format!("{end}, and no service has it"),
            [one] => format!("{end}, and one service has it: {one}"),
            all => format!("{end}, and {} services have it: {}", all.len(), all.join(", ")),
        }
    }
}

/// Columns as wide as what is in them.
fn table(filters: &[&FilterAccount]) -> String {
    let rows = filters.iter().map(|filter| {
        let provider = filter.provider.as_ref().map_or_else(|| "(host)".to_owned(), |provider| one_line(provider));
        [provider, one_line(&filter.filter), filter.weight.to_string(), filter.action.to_owned(), filter.why.clone()]
    });
    let head = ["provider", "filter", "weight", "action", "what becomes of it"].map(str::to_owned);
    let rows: Vec<_> = [head].into_iter().chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let [provider, filter, weight, action] = [0, 1, 2, 3].map(width);
    let lines = rows.iter().filter(|_| rows.len() > 1).map(|row| {
        let [a, b, c, d, e] = row;
        format!("  {a:provider$}  {b:filter$}  {c:>weight$}  {d:action$}  {e}\n")
    });
    lines.collect()
}

impl FilterAccount {
    /// Whether it matches.
    fn is_in_play(&self) -> bool {
        matches!(self.fate, "decides" | "skips" | "dead-and-open" | "outweighed" | "too-late")
    }
}

/// So many filters are all shown.
const FEW: usize = 20;

/// Names come from anywhere: what would tear the line or move the cursor is shown as what it is.
fn one_line(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}
