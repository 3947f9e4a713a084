//! Typed reading of a tree of [`Node`]s: what does not fit is noted with its place, and reading goes on.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;

use super::node::{Kind, Node, Position};
use super::report::Problem;

/// Where problems gather.
#[derive(Default)]
pub(crate) struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    pub(crate) fn push(&self, problem: Problem) {
        self.0.borrow_mut().push(problem);
    }

    pub(crate) fn into_inner(self) -> Vec<Problem> {
        self.0.into_inner()
    }
}

/// A value, its path, and where its problems go.
#[derive(Clone)]
pub(crate) struct Cursor<'a> {
    node: &'a Node,
    path: String,
    problems: &'a Problems,
}

/// A value that was read, with the cursor for what later turns out to be wrong with it.
pub(crate) struct At<'a, T> {
    pub(crate) value: T,
    pub(crate) at: Cursor<'a>,
}

impl<'a> Cursor<'a> {
    pub(crate) fn root(node: &'a Node, problems: &'a Problems) -> Self {
        Self {
            node,
            path: String::new(),
            problems,
        }
    }

    pub(crate) fn position(&self) -> Position {
        self.node.position
    }

    /// Notes that something is wrong with this value.
    pub(crate) fn problem(&self, message: impl Into<String>, help: Option<String>) {
        self.problems.push(Problem {
            position: self.node.position,
            length: self.node.length,
            path: self.path.clone(),
            message: message.into(),
            help,
        });
    }

    /// Notes that this value is not what is allowed here.
    pub(crate) fn expected<T>(&self, allowed: impl Display) -> Option<T> {
        let found = self.node.describe();
        self.problem(format!("found {found}, expected {allowed}"), None);
        None
    }

    pub(crate) fn is_sequence(&self) -> bool {
        matches!(self.node.kind, Kind::Sequence(_))
    }

    pub(crate) fn is_empty_list(&self) -> bool {
        matches!(&self.node.kind, Kind::Sequence(items) if items.is_empty())
    }

    pub(crate) fn is_mapping(&self) -> bool {
        matches!(self.node.kind, Kind::Mapping(_))
    }

    /// The text of a scalar, quoted or not, unless it is null.
    pub(crate) fn scalar(&self) -> Option<&'a str> {
        match &self.node.kind {
            Kind::Scalar { text, .. } if !self.node.is_null() => Some(text),
            _ => None,
        }
    }

    fn plain(&self) -> Option<&'a str> {
        match &self.node.kind {
            Kind::Scalar { text, plain: true } => Some(text),
            _ => None,
        }
    }

    /// A mapping as it is written.
    pub(crate) fn written(&self) -> serde_json::Map<String, serde_json::Value> {
        match self.node.value() {
            serde_json::Value::Object(map) => map,
            _ => serde_json::Map::new(),
        }
    }

    /// A mapping's fields.
    pub(crate) fn fields(&self, allowed: &str) -> Option<Fields<'a>> {
        let Kind::Mapping(entries) = &self.node.kind else {
            return self.expected(allowed);
        };
        let mut seen: Vec<(&str, Position)> = Vec::new();
        for (key, _) in entries {
            let Kind::Scalar { text, .. } = &key.kind else {
                let found = key.describe();
                self.key_problem(key, format!("found {found}, expected a key"), None);
                continue;
            };
            match seen.iter().find(|(name, _)| name == text) {
                Some((_, first)) => self.key_problem(
                    key,
                    format!("the key `{text}` stands here for a second time"),
                    Some(format!("the first is on line {}", first.line)),
                ),
                None => seen.push((text, key.position)),
            }
        }
        Some(Fields {
            cursor: self.clone(),
            entries,
            inherited: None,
            asked: Vec::new(),
        })
    }

    /// The entries of a mapping whose keys are names: each key and its value, as far as keys are texts and stand once.
    pub(crate) fn entries(&self, allowed: &str) -> Option<Vec<(Self, Self)>> {
        // Notes keys that are no texts, and those that stand twice.
        self.fields(allowed)?;
        let Kind::Mapping(entries) = &self.node.kind else {
            return None;
        };
        let child = |node, name: &str| Self {
            node,
            path: match self.path.as_str() {
                "" => name.to_owned(),
                path => format!("{path}.{name}"),
            },
            problems: self.problems,
        };
        let named = entries.iter().filter_map(|(key, value)| match &key.kind {
            Kind::Scalar { text, .. } => Some((child(key, text), child(value, text))),
            _ => None,
        });
        Some(named.collect())
    }

    /// Nothing stands here, or null.
    pub(crate) fn is_null(&self) -> bool {
        self.node.is_null()
    }

    fn key_problem(&self, key: &Node, message: String, help: Option<String>) {
        self.problems.push(Problem {
            position: key.position,
            length: key.length,
            path: self.path.clone(),
            message,
            help,
        });
    }

    /// A list's items, each read by `read`; those that do not fit are left out.
    pub(crate) fn list<T>(
        &self,
        allowed: &str,
        read: impl Fn(Cursor<'a>) -> Option<T>,
    ) -> Option<Vec<At<'a, T>>> {
        let Kind::Sequence(items) = &self.node.kind else {
            return self.expected(allowed);
        };
        let cursors = items.iter().enumerate().map(|(index, node)| Self {
            node,
            path: format!("{}[{index}]", self.path),
            problems: self.problems,
        });
        Some(
            cursors
                .filter_map(|at| {
                    let value = read(at.clone())?;
                    Some(At { value, at })
                })
                .collect(),
        )
    }

    /// A whole number within `range`.
    pub(crate) fn number(&self, what: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let number = self
            .plain()
            .filter(|text| text.bytes().all(|octet| octet.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .filter(|number| range.contains(number));
        match number {
            Some(number) => Some(number),
            None => self.expected(format!("{what}, {} to {}", range.start(), range.end())),
        }
    }

    /// `true` or `false`, or one of the words of YAML 1.1, which people write.
    pub(crate) fn bool(&self) -> Option<bool> {
        let text = self.plain().map(str::to_ascii_lowercase);
        match text.as_deref() {
            Some("true" | "yes" | "on") => Some(true),
            Some("false" | "no" | "off") => Some(false),
            _ => self.expected("true or false"),
        }
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        if let Some(text) = self.scalar() {
            if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
                return Some(*value);
            }
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let message = format!("found `{text}`, expected {}", alternatives(&names));
            self.problem(message, did_you_mean(text, &names));
            return None;
        }
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.expected(alternatives(&names))
    }

    /// A text that `T` parses.
    pub(crate) fn parse<T: std::str::FromStr>(&self, allowed: &str) -> Option<T> {
        match self.scalar().and_then(|text| text.parse().ok()) {
            Some(value) => Some(value),
            None => self.expected(allowed),
        }
    }
}

/// The fields of a mapping. What is asked for is what is allowed: [`Fields::finish`] reports all other keys.
pub(crate) struct Fields<'a> {
    pub(crate) cursor: Cursor<'a>,
    entries: &'a [(Node, Node)],
    /// Where stands what is not said here.
    inherited: Option<Cursor<'a>>,
    asked: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The value of a key, where it is there.
    pub(crate) fn get(&mut self, key: &'static str) -> Option<Cursor<'a>> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        let own = value_of(&self.cursor, self.entries, key);
        own.or_else(|| {
            let inherited = self.inherited.as_ref()?;
            match &inherited.node.kind {
                Kind::Mapping(entries) => value_of(inherited, entries, key),
                _ => None,
            }
        })
    }

    /// What is not said here is what another mapping says, from now on.
    pub(crate) fn inherit(&mut self, from: &Cursor<'a>) {
        self.inherited = Some(from.clone());
    }

    /// Reads the value of a key; `None` where it is missing or does not fit.
    pub(crate) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Cursor<'a>) -> Option<T>,
    ) -> Option<T> {
        self.get(key).and_then(read)
    }

    /// Reads the value of a key that must be there. `why` says what it is for.
    pub(crate) fn required<T>(
        &mut self,
        key: &'static str,
        why: &str,
        read: impl FnOnce(Cursor<'a>) -> Option<T>,
    ) -> Option<T> {
        match self.get(key) {
            Some(cursor) => read(cursor),
            None => {
                self.cursor
                    .problem(format!("the key `{key}` is missing"), Some(why.to_owned()));
                None
            }
        }
    }

    /// Reads the value of a key that must be there where nothing stands in for it.
    pub(crate) fn required_or<T>(
        &mut self,
        stand_in: Option<T>,
        key: &'static str,
        why: &str,
        read: impl FnOnce(Cursor<'a>) -> Option<T>,
    ) -> Option<T> {
        match stand_in.filter(|_| self.get(key).is_none()) {
            None => self.required(key, why, read),
            stand_in => stand_in,
        }
    }

    /// Reports the keys that nothing asked for.
    pub(crate) fn finish(self) {
        for (key, _) in self.entries {
            if let Kind::Scalar { text, .. } = &key.kind
                && !self.asked.contains(&text.as_str())
            {
                let message = format!(
                    "unknown key `{text}`, allowed are {}",
                    enumerate(&self.asked, "and")
                );
                let help = did_you_mean(text, &self.asked);
                self.cursor.key_problem(key, message, help);
            }
        }
    }
}

fn value_of<'a>(cursor: &Cursor<'a>, entries: &'a [(Node, Node)], key: &str) -> Option<Cursor<'a>> {
    let value = entries
        .iter()
        .find(|(name, _)| matches!(&name.kind, Kind::Scalar { text, .. } if text == key));
    value.map(|(_, node)| Cursor {
        node,
        path: match cursor.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        },
        problems: cursor.problems,
    })
}

fn enumerate(words: &[&str], conjunction: &str) -> String {
    match words {
        [] => String::new(),
        [word] => format!("`{word}`"),
        [words @ .., last] => {
            let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
            format!("{} {conjunction} `{last}`", words.join(", "))
        }
    }
}

fn alternatives(words: &[&str]) -> String {
    enumerate(words, "or")
}

/// A word that is likely meant: at most a third of it differs.
pub(super) fn did_you_mean(text: &str, words: &[&str]) -> Option<String> {
    let normal = text.to_lowercase().replace('-', "_");
    words
        .iter()
        .map(|word| (strsim::osa_distance(&normal, &word.replace('-', "_")), word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .min()
        .map(|(_, word)| format!("did you mean `{word}`?"))
}
