//! Aligned tables.

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthStr;

/// What a cell means; decides its colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    /// As it is.
    #[default]
    Plain,
    /// What one looks for: names, the chosen path.
    Strong,
    /// As it should be.
    Good,
    /// On its way.
    Warning,
    /// Not as it should be.
    Bad,
    /// Of less interest.
    Dim,
}

impl Tone {
    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Strong => Style::new().bold(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Warning => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
            Self::Dim => Style::new().dimmed(),
        }
    }

    /// `text` in this tone.
    pub(super) fn paint(self, text: &str, colours: bool) -> String {
        match colours && self != Self::Plain {
            true => format!("{0}{text}{0:#}", self.style()),
            false => text.to_owned(),
        }
    }
}

/// A cell: text without control characters, whatever a neighbour put into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(super) fn new(text: impl Into<String>, tone: Tone) -> Self {
        let text: String = text.into();
        Self {
            text: match text.chars().any(char::is_control) {
                true => text
                    .chars()
                    .map(|c| if c.is_control() { '\u{fffd}' } else { c })
                    .collect(),
                false => text,
            },
            tone,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// How a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// A table with a head; columns are two spaces apart.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Names of columns; those that start with `#` hold numbers, and stand to the right.
    pub(super) fn new(columns: &[&'static str]) -> Self {
        Self {
            columns: columns
                .iter()
                .map(|name| match name.strip_prefix('#') {
                    Some(name) => (name, Align::Right),
                    None => (*name, Align::Left),
                })
                .collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; what is short is filled up with empty cells.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let mut row: Vec<Cell> = cells.into_iter().collect();
        row.resize_with(self.columns.len(), Cell::default);
        self.rows.push(row);
    }

    /// The text; columns with nothing in them are left out, no line ends in spaces.
    pub(super) fn render(&self, colours: bool) -> String {
        let width = |at: usize| {
            let cells = self.rows.iter().map(|row| row[at].text.width());
            cells.max().unwrap_or(0)
        };
        let shown: Vec<(usize, usize)> = (0..self.columns.len())
            .filter(|at| self.rows.is_empty() || width(*at) > 0)
            .map(|at| (at, width(at).max(self.columns[at].0.width())))
            .collect();
        let mut out = String::new();
        let heads: Vec<Cell> = self
            .columns
            .iter()
            .map(|(name, _)| Cell::new(*name, Tone::Dim))
            .collect();
        for row in std::iter::once(&heads).chain(&self.rows) {
            let mut line = String::new();
            // Spaces that are due before the next text.
            let mut due = 0;
            for (at, width) in &shown {
                let cell = &row[*at];
                let fill = width - cell.text.width();
                let (before, after) = match self.columns[*at].1 {
                    Align::Left => (0, fill),
                    Align::Right => (fill, 0),
                };
                if cell.text.is_empty() {
                    due += width + 2;
                    continue;
                }
                line.push_str(&" ".repeat(due + before));
                line.push_str(&cell.tone.paint(&cell.text, colours));
                due = after + 2;
            }
            out.push_str(&line);
            out.push('\n');
        }
        out
    }
}

/// Lines of a name and a text.
pub(super) struct Sheet {
    lines: Vec<(&'static str, String, Tone)>,
}

impl Sheet {
    pub(super) fn new() -> Self {
        Self { lines: Vec::new() }
    }

    pub(super) fn line(&mut self, name: &'static str, text: impl Into<String>, tone: Tone) {
        self.lines.push((name, text.into(), tone));
    }

    pub(super) fn render(self, colours: bool) -> String {
        let mut table = Table::new(&["", ""]);
        for (name, text, tone) in self.lines {
            table.row([Cell::new(name, Tone::Dim), Cell::new(text, tone)]);
        }
        // The head is empty: it is one line feed.
        table.render(colours).trim_start_matches('\n').to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(&["NAME", "#ROUTES", "EMPTY", "STATE"]);
        table.row([
            "red".into(),
            "2".into(),
            "".into(),
            Cell::new("up", Tone::Good),
        ]);
        table.row(["日本".into(), "12345678".into()]);
        table
    }

    #[test]
    fn columns_align_by_width_and_empty_ones_go() {
        assert_eq!(
            sample().render(false),
            "NAME    ROUTES  STATE\n\
             red          2  up\n\
             日本  12345678\n"
        );
    }

    #[test]
    fn colours_do_not_move_columns() {
        let coloured = sample().render(true);
        assert!(coloured.contains("\u{1b}[32mup\u{1b}[0m"), "{coloured:?}");
        let mut plain = String::new();
        let mut escape = false;
        for c in coloured.chars() {
            match c {
                '\u{1b}' => escape = true,
                'm' if escape => escape = false,
                c if !escape => plain.push(c),
                _ => {}
            }
        }
        assert_eq!(plain, sample().render(false));
    }

    #[test]
    fn control_characters_of_a_neighbour_do_not_reach_the_terminal() {
        let mut table = Table::new(&["WHY"]);
        table.row([Cell::from("bye\u{1b}[2J\n")]);
        assert_eq!(
            table.render(true).matches('\u{1b}').count(),
            2,
            "the head's"
        );
        assert!(table.render(false).ends_with("bye\u{fffd}[2J\u{fffd}\n"));
    }
}
