//! What is wrong with a text before it is YAML: an encoding that is not UTF-8, and characters that look like others.

use super::node::Position;
use super::report::Problem;

/// The text of a file.
///
/// # Errors
/// It is not UTF-8: where it begins not to be, what it likely is, and how it becomes UTF-8; with the text as well as it can be shown.
pub(super) fn decode(octets: Vec<u8>) -> Result<String, (String, Problem)> {
    let octets = match octets.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) => rest.to_vec(),
        None => octets,
    };
    if let Some((name, text)) = wide(&octets) {
        let problem = Problem {
            position: Position { line: 1, column: 1 },
            length: usize::MAX,
            path: String::new(),
            message: format!("the file is {name}, and a configuration is UTF-8"),
            help: Some(format!("`iconv -f {name} -t UTF-8 FILE > NEW` makes one")),
        };
        return Err((text, problem));
    }
    match String::from_utf8(octets) {
        Ok(text) => Ok(text),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let octets = error.into_bytes();
            let text = shown(&octets);
            let before = String::from_utf8_lossy(&octets[..at]);
            let line = before.matches('\n').count();
            let start = before.rfind('\n').map_or(0, |at| at + 1);
            let octet = octets[at];
            let latin = match octet {
                // Below, Latin-1 has control characters.
                0xa0.. => format!(", in Latin-1 it is `{}`", char::from(octet)),
                _ => String::new(),
            };
            let problem = Problem {
                position: Position {
                    line: line + 1,
                    column: before[start..].chars().count() + 1,
                },
                length: 1,
                path: String::new(),
                message: format!(
                    "the octet 0x{octet:02x} is not UTF-8{latin}; a configuration is UTF-8"
                ),
                help: Some(
                    "`iconv -f LATIN1 -t UTF-8 FILE > NEW` makes one, where the file is Latin-1"
                        .to_owned(),
                ),
            };
            Err((text, problem))
        }
    }
}

/// UTF-16 or UTF-32 by its byte order mark, or because ASCII in it has zeros: its name for iconv, and its text.
fn wide(octets: &[u8]) -> Option<(&'static str, String)> {
    let (name, unit, big) = match octets {
        [0xff, 0xfe, 0, 0, ..] => ("UTF-32", 4, false),
        [0, 0, 0xfe, 0xff, ..] => ("UTF-32", 4, true),
        [0xff, 0xfe, ..] => ("UTF-16", 2, false),
        [0xfe, 0xff, ..] => ("UTF-16", 2, true),
        [0, first, ..] if *first != 0 => ("UTF-16BE", 2, true),
        [first, 0, ..] if *first != 0 => ("UTF-16LE", 2, false),
        _ => return None,
    };
    let number = |unit: &[u8]| {
        let add = |number: u32, octet: &u8| number << 8 | u32::from(*octet);
        match big {
            true => unit.iter().fold(0, add),
            false => unit.iter().rev().fold(0, add),
        }
    };
    let numbers = octets.chunks_exact(unit).map(number);
    let text: String = match unit {
        2 => {
            let units = numbers.filter_map(|number| u16::try_from(number).ok());
            String::from_utf16_lossy(&units.collect::<Vec<_>>())
        }
        _ => numbers.filter_map(char::from_u32).collect(),
    };
    Some((name, text.trim_start_matches('\u{feff}').to_owned()))
}

/// UTF-8 where it is that, Latin-1 elsewhere.
fn shown(octets: &[u8]) -> String {
    let mut text = String::new();
    for chunk in octets.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().copied().map(char::from));
    }
    text
}

/// What a character is that looks like another one, or like none, and what is meant.
pub(super) fn look_alike(c: char) -> Option<(&'static str, &'static str)> {
    Some(match c {
        '\u{a0}' | '\u{2007}' | '\u{202f}' => ("a no-break space", "a blank"),
        '\u{2000}'..='\u{200a}' | '\u{205f}' | '\u{3000}' | '\u{1680}' => {
            ("a space of typography", "a blank")
        }
        '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}' | '\u{ad}' => {
            ("a character without width", "nothing")
        }
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            ("an invisible mark of direction", "nothing")
        }
        '\u{85}' | '\u{2028}' | '\u{2029}' => ("a separator of lines", "a line feed"),
        '\u{2010}'..='\u{2015}' | '\u{2212}' => ("a dash of typography", "`-`"),
        '\u{201c}'..='\u{201f}' | '\u{ab}' | '\u{bb}' => ("a quote of typography", "`\"`"),
        '\u{2018}'..='\u{201b}' => ("a quote of typography", "`'`"),
        '\u{ff1a}' => ("a wide colon", "`:`"),
        _ => return None,
    })
}

/// A line that something is wrong with, and that has a character which looks like another one: that is what is wrong with it.
pub(super) fn explain(text: &str, problems: Vec<Problem>) -> Vec<Problem> {
    let lines: Vec<&str> = text.lines().collect();
    let mut explained: Vec<Problem> = Vec::new();
    for problem in problems {
        let line = problem.position.line;
        let found = lines
            .get(line.saturating_sub(1))
            .and_then(|line| first(line));
        let Some((column, c, (what, meant))) = found else {
            explained.push(problem);
            continue;
        };
        let position = Position { line, column };
        if explained.iter().any(|other| other.position == position) {
            continue;
        }
        explained.push(Problem {
            position,
            length: 1,
            path: problem.path,
            message: format!("{what} (U+{:04X}) stands here", u32::from(c)),
            help: Some(format!("write {meant} in its place")),
        });
    }
    explained
}

/// The first look-alike of a line outside of its comment, with its column.
fn first(line: &str) -> Option<(usize, char, (&'static str, &'static str))> {
    let mut before = ' ';
    for (at, c) in line.chars().enumerate() {
        if c == '#' && before.is_whitespace() {
            return None;
        }
        if let Some(found) = look_alike(c) {
            return Some((at + 1, c, found));
        }
        before = c;
    }
    None
}
