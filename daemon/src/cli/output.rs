//! What a verb prints: aligned text for people, or JSON for programs.

use std::io::{self, Write};

use bowline_broker::exit::Failure;
use console::measure_text_width;
use serde_json::Value;

/// Where a verb's answer goes: one object, or one object a line for streams.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    pub json: bool,
}

impl Output {
    /// A line for people, or the object for programs.
    ///
    /// # Errors
    /// If standard output is closed.
    pub fn say(self, human: impl AsRef<str>, json: &Value) -> Result<(), Failure> {
        if self.json {
            return print(&json.to_string());
        }
        print(human.as_ref())
    }

    /// A failure: with `--json` an object on standard output, else text on standard error.
    pub fn fail(self, failure: &Failure) {
        let told = if self.json {
            writeln!(io::stdout(), "{}", failure.to_json())
        } else {
            writeln!(io::stderr(), "bowline: {failure}{}", near_names(failure))
        };
        // Nobody is left to be told when even this cannot be written; the exit code remains.
        drop(told);
    }

    /// A remark that is no part of the answer.
    pub fn note(self, text: &str) {
        let told = writeln!(io::stderr(), "bowline: {text}");
        drop(told);
    }
}

/// Rows under headings, each column as wide as its widest cell.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
    columns: usize,
}

impl Table {
    #[must_use]
    pub fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self {
            rows: vec![headings.map(str::to_owned).to_vec()],
            columns: N,
        }
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.columns, "a row has a cell for each heading");
        self.rows.push(cells.map(|cell| one_line(&cell)).to_vec());
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    #[must_use]
    pub fn render(&self) -> String {
        let width = |column: usize| {
            self.rows
                .iter()
                .map(|row| measure_text_width(&row[column]))
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                let pad = width - measure_text_width(cell) + 2;
                line.extend(std::iter::repeat_n(' ', pad));
            }
            line.trim_end().to_owned()
        };
        self.rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// What the text of others may do to a terminal: nothing. Controls other than line breaks and tabs
/// are shown, not obeyed.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            c if c.is_control() || is_bidi_control(c) => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// A field of an answer as text, empty where it is absent.
#[must_use]
pub fn text(value: &Value, field: &str) -> String {
    match &value[field] {
        Value::Null => String::new(),
        Value::String(text) => printable(text),
        other => other.to_string(),
    }
}

/// `950ms`, `12s`, `3m`, `2h`, `5d`.
#[must_use]
pub fn age(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..120_000 => format!("{}s", ms / 1_000),
        120_000..7_200_000 => format!("{}m", ms / 60_000),
        7_200_000..172_800_000 => format!("{}h", ms / 3_600_000),
        _ => format!("{}d", ms / 86_400_000),
    }
}

/// The first 12 characters of a key: enough to tell them apart, and a prefix that `send` takes.
#[must_use]
pub fn short_key(key: &str) -> String {
    key.chars().take(12).collect()
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

fn one_line(text: &str) -> String {
    printable(text).replace(['\n', '\t'], " ")
}

fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn near_names(failure: &Failure) -> String {
    let names: Vec<_> = failure
        .details
        .get("near")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|peer| text(peer, "name"))
        .collect();
    if names.is_empty() {
        return String::new();
    }
    format!("\n  did you mean: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bowline_broker::exit::Exit;
    use serde_json::json;

    #[test]
    fn columns_are_aligned_by_what_a_terminal_shows() {
        let mut table = Table::new(["NAME", "STATE"]);
        table.row(["日本".into(), "live".into()]);
        table.row(["alice".into(), "away 12s".into()]);
        assert_eq!(table.render(), "NAME   STATE\n日本   live\nalice  away 12s");
    }

    #[test]
    fn what_others_wrote_cannot_move_the_cursor_or_break_a_row() {
        assert_eq!(printable("a\u{1b}[2Jb\u{202e}c"), "a\u{fffd}[2Jb\u{fffd}c");
        let mut table = Table::new(["A"]);
        table.row(["x\ny".into()]);
        assert_eq!(table.render(), "A\nx y");
    }

    #[test]
    fn ages_have_one_unit() {
        assert_eq!(age(950), "950ms");
        assert_eq!(age(12_400), "12s");
        assert_eq!(age(600_000), "10m");
        assert_eq!(age(7_200_000), "2h");
    }

    #[test]
    fn near_names_are_offered() {
        let mut failure = Failure::new(Exit::NotFound, "target_unknown", "nobody is called bop");
        failure
            .details
            .insert("near".into(), json!([{"name": "bob"}, {"name": "bobby"}]));
        assert!(near_names(&failure).ends_with("did you mean: bob, bobby"));
    }
}
