//! AS paths by regular expressions.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use regex_automata::Input;
use regex_automata::dfa::{Automaton as _, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use weft_bgp_wire::AsPath;

use crate::term::NumberSet;

/// Octets that a compiled expression may take.
const LIMIT: usize = 1 << 20;

/// A regular expression over the text of an AS path, as FRR and Cisco have it: numbers with spaces between, sets in braces, confederation
/// segments in parentheses, and `_` for the start, the end, and what stands between numbers. Compiled to an automaton that looks at each
/// octet once, whatever the path.
#[derive(Clone)]
pub struct AsPathPattern {
    text: Box<str>,
    automaton: Arc<dense::DFA<Vec<u32>>>,
}

/// A text that is no expression over AS paths.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AsPathError {
    /// It has other characters than AS paths and expressions over them.
    #[error(
        "`{0}` stands in no AS path: expected digits, spaces, `_`, and `^ $ . * + ? | ( ) [ ] {{ }} , - \\`"
    )]
    Character(char),
    /// It is not well-formed.
    #[error("{0}")]
    Syntax(String),
    /// Its automaton takes more than a mebioctet.
    #[error("it is too large: write it as several, or shorter")]
    TooLarge,
}

/// What `_` stands for: inside of brackets, and elsewhere.
const BETWEEN: [&str; 2] = [r" {}()\[\]", r"(?:^|$|[ {}()\[\]])"];

/// As a regular expression of the usual kind.
fn translate(text: &str) -> Result<String, AsPathError> {
    let mut out = String::new();
    let (mut in_class, mut escaped) = (false, false);
    for character in text.chars() {
        let taken = character.is_ascii_digit() || " ^$.*+?|()[]{},-\\_".contains(character);
        if !taken {
            return Err(AsPathError::Character(character));
        }
        match character {
            '_' if !escaped => {
                out.push_str(BETWEEN[usize::from(!in_class)]);
                continue;
            }
            // The usual kind takes a backslash before what has a meaning only; digits would refer back.
            _ if escaped && (character.is_ascii_digit() || character == '_') => {
                return Err(AsPathError::Syntax(format!(
                    "`\\{character}` has no meaning"
                )));
            }
            '[' if !escaped && !in_class => in_class = true,
            ']' if !escaped => in_class = false,
            _ => {}
        }
        escaped = character == '\\' && !escaped;
        out.push(character);
    }
    Ok(out)
}

impl FromStr for AsPathPattern {
    type Err = AsPathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expression = translate(text)?;
        let syntax = syntax::Config::new().unicode(false).utf8(false);
        // Says what is wrong in words for people.
        syntax::parse_with(&expression, &syntax).map_err(|error| {
            let words = error.to_string();
            let last = words.lines().last().unwrap_or_default();
            AsPathError::Syntax(last.trim_start_matches("error: ").to_owned())
        })?;
        let nfa = thompson::Config::new()
            .utf8(false)
            .nfa_size_limit(Some(LIMIT));
        let dfa = dense::Config::new()
            .start_kind(StartKind::Unanchored)
            .dfa_size_limit(Some(LIMIT))
            .determinize_size_limit(Some(LIMIT));
        let automaton = dense::Builder::new()
            .syntax(syntax)
            .thompson(nfa)
            .configure(dfa)
            .build(&expression)
            .map_err(|_| AsPathError::TooLarge)?;
        Ok(Self {
            text: text.into(),
            automaton: Arc::new(automaton),
        })
    }
}

impl AsPathPattern {
    /// Whether it is found in the text of a path.
    pub fn is_match(&self, path: &str) -> bool {
        let input = Input::new(path).earliest(true);
        // It has no octet to give up at, and the search starts where it can.
        matches!(self.automaton.try_search_fwd(&input), Ok(Some(_)))
    }
}

impl PartialEq for AsPathPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for AsPathPattern {}

impl fmt::Display for AsPathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for AsPathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsPathPattern({:?})", self.text)
    }
}

/// What an AS path may be; any of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AsPathTest {
    /// One of these matches.
    pub patterns: Vec<AsPathPattern>,
    /// One of these AS numbers stands in it.
    pub contains: NumberSet,
}

impl AsPathTest {
    /// Whether a path is such a one; `text` is the path's.
    pub(crate) fn matches(&self, path: AsPath<'_>, text: impl FnOnce() -> bool) -> bool {
        let contains = !self.contains.is_empty();
        (contains && path.asns().any(|asn| self.contains.contains(asn.0)))
            || (!self.patterns.is_empty() && text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_underscore_is_what_stands_between_numbers() {
        for (pattern, path, found) in [
            ("_65001_", "65001", true),
            ("_65001_", "64999 65001 65002", true),
            ("_65001_", "165001 650010", false),
            ("_65001_65002_", "65001 65002", true),
            ("^65001_", "65001 65002", true),
            ("^65001_", "650011", false),
            ("_65002$", "65001 65002", true),
            ("^$", "", true),
            ("^$", "65001", false),
            (".*", "", true),
            ("_65001_", "64999 {65001 65002}", true),
            ("_65002_", "64999 {65001 65002}", true),
            (r"^\(65001", "(65001 65002) 64999", true),
            ("^[0-9]+$", "64999", true),
            ("^[0-9]+$", "64999 65001", false),
            ("^65001(_65001)*$", "65001 65001 65001", true),
            ("^65001(_65001)*$", "65001 65001 65002", false),
            ("^[0-9]+[_]65001", "64999 65001", true),
            ("_(65001|65002)_", "1 65002 2", true),
            ("^([0-9]+_){3,}", "1 2 3 4", true),
        ] {
            let pattern: AsPathPattern = pattern.parse().unwrap();
            assert_eq!(pattern.is_match(path), found, "{pattern} on {path}");
        }
    }

    #[test]
    fn what_is_no_expression_is_said_in_words() {
        let error = |text: &str| text.parse::<AsPathPattern>().unwrap_err();
        assert_eq!(error("_65001a"), AsPathError::Character('a'));
        assert_eq!(
            error("((((1{99}){99}){99}){99}"),
            error("((((1{99}){99}){99}){99}")
        );
        assert_eq!(error("(((1{999}){999}){999})"), AsPathError::TooLarge);
        assert!(matches!(error("(65001"), AsPathError::Syntax(_)));
        assert!(
            error("(65001").to_string().contains("unclosed"),
            "{}",
            error("(65001")
        );
        assert!(matches!(error(r"\1"), AsPathError::Syntax(_)));
        assert!(matches!(error("[9-0]"), AsPathError::Syntax(_)));
    }
}
