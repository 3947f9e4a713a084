//! What is wrong with a configuration, all of it, each with its place and a picture of the line.

use std::fmt::{self, Write};

use anstyle::{AnsiColor, Style};

use super::node::Position;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Where.
    pub position: Position,
    /// How many characters are meant.
    pub length: usize,
    /// The key, such as `tenants[0].vni`; empty for the document itself.
    pub path: String,
    /// What was found and what is allowed.
    pub message: String,
    /// What would mend it.
    pub help: Option<String>,
}

/// Everything that is wrong with one file, in the order of its lines; never empty.
#[derive(Clone, Debug)]
pub(crate) struct ConfigErrors {
    file: String,
    lines: Vec<String>,
    pub(crate) problems: Vec<Problem>,
}

const ERROR: Style = AnsiColor::BrightRed.on_default().bold();
const FRAME: Style = AnsiColor::BrightBlue.on_default().bold();
const HELP: Style = AnsiColor::Cyan.on_default();
const BOLD: Style = Style::new().bold();

impl ConfigErrors {
    pub(crate) fn new(file: &str, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.position);
        Self {
            file: file.to_owned(),
            lines: text.lines().map(str::to_owned).collect(),
            problems,
        }
    }

    /// The report, with the lines in question; with ANSI colours where `colours` is set.
    pub(crate) fn render(&self, colours: bool) -> String {
        let paint = |style: Style, text: &str| match colours {
            true => format!("{style}{text}{style:#}"),
            false => text.to_owned(),
        };
        let mut out = String::new();
        for problem in &self.problems {
            let Position { line, column } = problem.position;
            let subject = match problem.path.as_str() {
                "" => problem.message.clone(),
                path => format!("{path}: {}", problem.message),
            };
            let gutter = " ".repeat(line.to_string().len());
            let bar = paint(FRAME, "|");
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "{}{}",
                paint(ERROR, "error"),
                paint(BOLD, &format!(": {subject}"))
            );
            let arrow = paint(FRAME, "-->");
            let _ = writeln!(out, "{gutter}{arrow} {}:{line}:{column}", self.file);
            if let Some(source) = self.lines.get(line - 1) {
                // Tabs stay tabs, so that the caret stands under its text.
                let indent: String = source
                    .chars()
                    .take(column - 1)
                    .map(|c| if c == '\t' { '\t' } else { ' ' })
                    .collect();
                let room = source.chars().count().saturating_sub(column - 1).max(1);
                let caret = paint(ERROR, &"^".repeat(problem.length.clamp(1, room)));
                let number = paint(FRAME, &line.to_string());
                let _ = writeln!(out, "{gutter} {bar}");
                let _ = writeln!(out, "{number} {bar} {source}");
                let _ = writeln!(out, "{gutter} {bar} {indent}{caret}");
            }
            if let Some(help) = &problem.help {
                let _ = writeln!(out, "{gutter} {} {help}", paint(HELP, "= help:"));
            }
            out.push('\n');
        }
        let count = match self.problems.len() {
            1 => "1 error".to_owned(),
            n => format!("{n} errors"),
        };
        let _ = write!(out, "{}: {count}", self.file);
        out
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for ConfigErrors {}
