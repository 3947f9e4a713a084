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

/// What a view is told beside its data.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct View {
    /// Every column, and lists in full.
    pub(super) wide: bool,
    /// With ANSI colours.
    pub(super) colours: bool,
    /// Columns of the terminal; none where the text goes elsewhere, and nothing is left out then.
    pub(super) width: Option<usize>,
}

/// A column's place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Column {
    name: &'static str,
    /// Holds numbers: stands to the right.
    right: bool,
    /// Is not broken into lines.
    unbroken: bool,
    /// May be left out on a narrow terminal.
    spare: bool,
}

/// Spaces between columns.
const GAP: usize = 2;
/// A text that is broken into lines keeps this many columns, while there are others to leave out.
const COMFORT: usize = 24;

/// A table with a head.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Names of columns. `#` before one: it holds numbers, and stands to the right. `?` before that: it is left out first on a
    /// narrow terminal, the last such column before the others.
    pub(super) fn new(columns: &[&'static str]) -> Self {
        let column = |name: &&'static str| {
            let (name, spare) = match name.strip_prefix('?') {
                Some(name) => (name, true),
                None => (*name, false),
            };
            let (name, right) = match name.strip_prefix('#') {
                Some(name) => (name, true),
                None => (name, false),
            };
            Column {
                name,
                right,
                unbroken: right,
                spare,
            }
        };
        Self {
            columns: columns.iter().map(column).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; what is short is filled up with empty cells.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let mut row: Vec<Cell> = cells.into_iter().collect();
        row.resize_with(self.columns.len(), Cell::default);
        self.rows.push(row);
    }

    /// The text. Columns with nothing in them are left out, no line ends in spaces.
    ///
    /// On a terminal that is too narrow, texts are broken into lines, and spare columns left out, which the last line says; where that
    /// is not enough each row becomes lines of names and values. Elsewhere, a row is one line.
    pub(super) fn render(&self, view: View) -> String {
        let used = |at: &usize| self.rows.is_empty() || self.natural(*at) > 0;
        let mut shown: Vec<usize> = (0..self.columns.len()).filter(used).collect();
        let Some(room) = view.width else {
            let columns = shown.iter().map(|at| (*at, self.full(*at)));
            return self.lines(&columns.collect::<Vec<_>>(), view.colours);
        };
        let mut left_out: Vec<&str> = Vec::new();
        let columns = loop {
            if let Some(columns) = self.fit(&shown, room, COMFORT) {
                break Some(columns);
            }
            let spare = |at: &usize| self.columns[*at].spare && !view.wide;
            match shown.iter().rposition(spare) {
                Some(place) => left_out.push(self.columns[shown.remove(place)].name),
                None => break self.fit(&shown, room, 0),
            }
        };
        let Some(columns) = columns else {
            return self.records(room, view.colours);
        };
        let mut text = self.lines(&columns, view.colours);
        if !left_out.is_empty() {
            left_out.reverse();
            let note = format!(
                "for want of room without {}: -o wide",
                left_out.join(", ").to_lowercase()
            );
            for line in wrap(&note, room) {
                text.push_str(&Tone::Dim.paint(&line, view.colours));
                text.push('\n');
            }
        }
        text
    }

    /// The widest cell of a column.
    fn natural(&self, at: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[at].text.width());
        cells.max().unwrap_or(0)
    }

    /// The same with its head.
    fn full(&self, at: usize) -> usize {
        self.natural(at).max(self.columns[at].name.width())
    }

    /// What a column needs at least: a number's all, a text's longest word.
    fn least(&self, at: usize, comfort: usize) -> usize {
        let full = self.full(at);
        if self.columns[at].unbroken {
            return full;
        }
        let cells = self.rows.iter().map(|row| row[at].text.as_str());
        let words = cells
            .chain([self.columns[at].name])
            .flat_map(|text| text.split(' '));
        let longest = words.map(UnicodeWidthStr::width).max().unwrap_or(0);
        longest.max(comfort).min(full)
    }

    /// Widths with which these columns have room: the widest are made narrower first. `None` where that is not enough.
    fn fit(&self, shown: &[usize], room: usize, comfort: usize) -> Option<Vec<(usize, usize)>> {
        let room = room.checked_sub(GAP * shown.len().saturating_sub(1))?;
        let mut columns: Vec<(usize, usize)> =
            shown.iter().map(|at| (*at, self.full(*at))).collect();
        let least: Vec<usize> = shown.iter().map(|at| self.least(*at, comfort)).collect();
        let mut total: usize = columns.iter().map(|(_, width)| width).sum();
        while total > room {
            let widest = (0..columns.len())
                .filter(|place| columns[*place].1 > least[*place])
                .max_by_key(|place| columns[*place].1)?;
            columns[widest].1 -= 1;
            total -= 1;
        }
        Some(columns)
    }

    /// Aligned lines.
    fn lines(&self, columns: &[(usize, usize)], colours: bool) -> String {
        let heads = self.columns.iter();
        let heads: Vec<Cell> = heads
            .map(|column| Cell::new(column.name, Tone::Dim))
            .collect();
        let mut out = String::new();
        for row in std::iter::once(&heads).chain(&self.rows) {
            let broken: Vec<Vec<String>> = columns
                .iter()
                .map(|(at, width)| wrap(&row[*at].text, *width))
                .collect();
            let height = broken.iter().map(Vec::len).max().unwrap_or(0).max(1);
            for line in 0..height {
                // Spaces that are due before the next text.
                let mut due = 0;
                for ((at, width), lines) in columns.iter().zip(&broken) {
                    let Some(text) = lines.get(line).filter(|text| !text.is_empty()) else {
                        due += width + GAP;
                        continue;
                    };
                    let fill = width.saturating_sub(text.width());
                    let (before, after) = match self.columns[*at].right {
                        true => (fill, 0),
                        false => (0, fill),
                    };
                    out.push_str(&" ".repeat(due + before));
                    out.push_str(&row[*at].tone.paint(text, colours));
                    due = after + GAP;
                }
                out.push('\n');
            }
        }
        out
    }

    /// Each row as lines of names and values; a cell without a name stands before the next one's value.
    fn records(&self, room: usize, colours: bool) -> String {
        let names = self.columns.iter().map(|column| column.name.width());
        let indent = names.max().unwrap_or(0) + GAP;
        let mut out = String::new();
        for (place, row) in self.rows.iter().enumerate() {
            if place > 0 {
                out.push('\n');
            }
            let mut before = String::new();
            for (column, cell) in self.columns.iter().zip(row) {
                if cell.text.is_empty() {
                    continue;
                }
                if column.name.is_empty() {
                    before = format!("{} ", cell.text);
                    continue;
                }
                let text = format!("{}{}", std::mem::take(&mut before), cell.text);
                for (line, part) in wrap(&text, room.saturating_sub(indent)).iter().enumerate() {
                    let name = if line == 0 { column.name } else { "" };
                    out.push_str(&Tone::Dim.paint(name, colours));
                    out.push_str(&" ".repeat(indent - name.width()));
                    out.push_str(&cell.tone.paint(part, colours));
                    out.push('\n');
                }
            }
            if !before.is_empty() {
                out.push_str(&format!("{}{}\n", " ".repeat(indent), before.trim_end()));
            }
        }
        out
    }
}

/// A text in lines of `width` columns, broken at spaces; a word that is longer stays whole. Spaces at its beginning indent every line.
fn wrap(text: &str, width: usize) -> Vec<String> {
    if text.width() <= width {
        return vec![text.to_owned()];
    }
    let body = text.trim_start_matches(' ');
    let indent = &text[..text.len() - body.len()];
    let mut lines: Vec<String> = Vec::new();
    for word in body.split(' ') {
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{indent}{word}")),
        }
    }
    lines
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

    pub(super) fn render(self, view: View) -> String {
        let mut table = Table::new(&["", ""]);
        for (name, text, tone) in self.lines {
            table.row([Cell::new(name, Tone::Dim), Cell::new(text, tone)]);
        }
        table.columns[0].unbroken = true;
        // The head is empty: it is one line feed.
        table.render(view).trim_start_matches('\n').to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: View = View {
        wide: false,
        colours: false,
        width: None,
    };
    const COLOURS: View = View {
        colours: true,
        ..PLAIN
    };

    fn at(width: usize) -> View {
        View {
            width: Some(width),
            ..PLAIN
        }
    }

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
            sample().render(PLAIN),
            "NAME    ROUTES  STATE\n\
             red          2  up\n\
             日本  12345678\n"
        );
    }

    #[test]
    fn colours_do_not_move_columns() {
        let coloured = sample().render(COLOURS);
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
        assert_eq!(plain, sample().render(PLAIN));
    }

    #[test]
    fn control_characters_of_a_neighbour_do_not_reach_the_terminal() {
        let mut table = Table::new(&["WHY"]);
        table.row([Cell::from("bye\u{1b}[2J\n")]);
        assert_eq!(
            table.render(COLOURS).matches('\u{1b}').count(),
            2,
            "the head's"
        );
        assert!(table.render(PLAIN).ends_with("bye\u{fffd}[2J\u{fffd}\n"));
    }

    fn reasons() -> Table {
        let mut table = Table::new(&["", "PREFIX", "?#PREF", "?#MED", "WHY NOT"]);
        let path = |why: &str| -> [Cell; 5] {
            let cells = [">", "10.0.1.0/24", "100", "7", why];
            cells.map(Cell::from)
        };
        table.row(path("another one has a shorter AS_PATH than this"));
        table.row(path("short"));
        table
    }

    #[test]
    fn a_terminal_breaks_texts_then_leaves_out_spare_columns_then_gives_records() {
        // Elsewhere nothing is broken, however wide.
        let whole = reasons().render(PLAIN);
        assert_eq!(whole.lines().count(), 3, "{whole}");
        assert_eq!(
            reasons().render(at(60)),
            "   PREFIX       PREF  MED  WHY NOT
>  10.0.1.0/24   100    7  another one has a shorter AS_PATH
                           than this
>  10.0.1.0/24   100    7  short
"
        );
        assert_eq!(
            reasons().render(at(46)),
            "   PREFIX       PREF  WHY NOT
>  10.0.1.0/24   100  another one has a
                      shorter AS_PATH than
                      this
>  10.0.1.0/24   100  short
for want of room without med: -o wide
"
        );
        assert_eq!(
            reasons().render(at(20)),
            "\
PREFIX   >
         10.0.1.0/24
PREF     100
MED      7
WHY NOT  another one
         has a
         shorter
         AS_PATH
         than this

PREFIX   >
         10.0.1.0/24
PREF     100
MED      7
WHY NOT  short
"
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_wide_leaves_nothing_out() {
        for width in 30..100 {
            for wide in [false, true] {
                let view = View { wide, ..at(width) };
                let text = reasons().render(view);
                for line in text.lines() {
                    assert!(line.width() <= width, "{width}: {line}");
                }
                let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
                for word in ["10.0.1.0/24", "another", "than this", "short"] {
                    assert!(words.contains(word), "{width}: {text}");
                }
                assert!(!wide || words.contains("MED"), "{width}: {text}");
            }
        }
    }

    #[test]
    fn a_sheet_breaks_its_texts_and_not_its_names() {
        let mut sheet = Sheet::new();
        sheet.line(
            "graceful restart",
            "yes, it may be away for 2m00s",
            Tone::Plain,
        );
        assert_eq!(
            sheet.render(at(40)),
            "graceful restart  yes, it may be away\n                  for 2m00s\n"
        );
    }
}
