//! `${VARIABLE}` in a topology file, from the environment, before the file is read as YAML.
//!
//! `$X`, `${X}`, `${X:-else}`, `${X:=else}`, `${X-else}`, `${X=else}`, `${X:+other}`, `${X+other}`, `${X:?words}`, `${X?words}` as in a shell; with a
//! colon, an empty value counts as none. `$$` is one `$`. What has neither value nor default stays as it is written: it may be meant for the
//! shell of a node.

use crate::config::node::Position;

/// A variable that must be set is not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// Where it stands.
    pub(super) position: Position,
    /// Which it is, and what the file says about it.
    pub(super) message: String,
}

/// The text with the values of its variables.
pub(super) fn expand(
    text: &str,
    value: &impl Fn(&str) -> Option<String>,
) -> Result<String, Missing> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let behind = &rest[at + 1..];
        if let Some(after) = behind.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let braced = behind.starts_with('{');
        let inner = &behind[usize::from(braced)..];
        let name = &inner[..name_length(inner)];
        let end = match braced {
            true => closing(inner),
            false => Some(name.len()),
        };
        let Some(end) = end.filter(|_| !name.is_empty()) else {
            out.push('$');
            rest = behind;
            continue;
        };
        let written = &rest[..at + 1 + usize::from(braced) * 2 + end];
        let found = value(name);
        match operator(&inner[name.len()..end]) {
            None => out.push_str(found.as_deref().unwrap_or(&written[at..])),
            Some((with_colon, kind, word)) => {
                let found = found.filter(|value| !(with_colon && value.is_empty()));
                match (kind, found) {
                    ('-' | '=' | '?', Some(value)) => out.push_str(&value),
                    ('?', None) => {
                        let start = text.len() - rest.len() + at;
                        return Err(Missing {
                            position: place(text, start),
                            message: format!("the variable `{name}` is not set: {word}"),
                        });
                    }
                    ('+', None) => {}
                    _ => out.push_str(&expand(word, value)?),
                }
            }
        }
        rest = &rest[written.len()..];
    }
    out.push_str(rest);
    Ok(out)
}

/// How much of the text is a name.
fn name_length(text: &str) -> usize {
    let fits = |(at, octet): &(usize, u8)| {
        octet.is_ascii_alphabetic() || *octet == b'_' || (*at > 0 && octet.is_ascii_digit())
    };
    text.bytes().enumerate().take_while(fits).count()
}

/// Where the brace is closed that was opened before the text.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 1;
    for (at, octet) in text.bytes().enumerate() {
        match octet {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b'\n' => return None,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// What stands behind a name in braces: whether with a colon, which operator, and its word.
fn operator(text: &str) -> Option<(bool, char, &str)> {
    let behind = text.strip_prefix(':').unwrap_or(text);
    let kind = behind
        .chars()
        .next()
        .filter(|kind| "-=+?".contains(*kind))?;
    Some((behind.len() < text.len(), kind, &behind[1..]))
}

/// The place of an octet in the text.
pub(super) fn place(text: &str, at: usize) -> Position {
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    Position {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> String {
        let value = |name: &str| match name {
            "A" => Some("1".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        expand(text, &value).unwrap()
    }

    #[test]
    fn values_and_defaults_stand_in_for_variables() {
        for (text, expected) in [
            ("$A ${A} x${A}y $Ab", "1 1 x1y $Ab"),
            ("${B:=x} ${B:-y} ${B-z} ${B=}", "x y z "),
            ("${EMPTY:=x} ${EMPTY-x} ${EMPTY}", "x  "),
            ("${B:-${A}} ${B:=${C:-deep}}", "1 deep"),
            ("${A:+set} ${B:+set}.", "set ."),
            ("image:${TAG:=v1.2}", "image:v1.2"),
        ] {
            assert_eq!(expanded(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_the_shells_stays() {
        for text in [
            "$B ${B}",
            "$(id) $1 $? $",
            "${",
            "${B",
            "${B:-\n}",
            "${B#x}",
            "${}",
        ] {
            assert_eq!(expanded(text), text);
        }
        assert_eq!(expanded("echo $$A $$$A"), "echo $A $1");
    }

    #[test]
    fn a_variable_that_must_be_set_is_named_with_its_place() {
        let missing = expand("a: 1\nb: é ${B:?the tag of the image}", &|_| None).unwrap_err();
        assert_eq!((missing.position.line, missing.position.column), (2, 6));
        assert_eq!(
            missing.message,
            "the variable `B` is not set: the tag of the image"
        );
    }
}
