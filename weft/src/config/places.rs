//! Where something stands in a configuration that was read.

use super::node::{self, Kind, Node};

/// A text, to look places up in.
pub(crate) struct Places(Option<Node>);

impl Places {
    /// Of a text that is a configuration.
    pub(crate) fn new(text: &str) -> Self {
        Self(node::parse(text).ok().flatten())
    }

    /// The line, from one, of what has a path such as `tenants[0].vnis`; of what it would stand in, where it is not there.
    pub(crate) fn line(&self, path: &str) -> usize {
        let Some(mut node) = self.0.as_ref() else {
            return 1;
        };
        for step in path.split(['.', '[']) {
            let inside = match (&node.kind, step.strip_suffix(']')) {
                (Kind::Sequence(items), Some(index)) => {
                    index.parse().ok().and_then(|at: usize| items.get(at))
                }
                (Kind::Mapping(entries), None) => entries
                    .iter()
                    .find(|(key, _)| matches!(&key.kind, Kind::Scalar { text, .. } if text == step))
                    .map(|(_, value)| value),
                _ => None,
            };
            match inside {
                Some(inside) => node = inside,
                None => break,
            }
        }
        node.position.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_by_path() {
        let text = "router:\n  name: r1\ntenants:\n  - name: red\n    vnis: [7,\n      8]\n";
        let places = Places::new(text);
        for (path, line) in [
            ("router.name", 2),
            ("tenants[0].vnis[1]", 6),
            ("tenants[0].breakout", 4),
            ("tenants[7]", 4),
            ("nothing", 1),
        ] {
            assert_eq!(places.line(path), line, "{path}");
        }
    }
}
